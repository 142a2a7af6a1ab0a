// A model of another program, as this one sees it: its sizes, its tensors under our names, its tokenizer.
#pragma once
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "checkpoints/tensor_source.h"
#include "models/model_config.h"

namespace longreach {

struct ForeignModel {
  std::string path;    // what errors name
  std::string format;  // what it is: "Hugging Face, llama", "GGUF, llama"
  ModelConfig config;
  std::shared_ptr<const TensorSource> tensors;  // by the names of Transformer's parameters, and no others
  // Files of its tokenizer by name, as data::load_tokenizer reads them from a folder: "tokenizer.json" ->
  // contents; also "tokenizer_config.json", "generation_config.json". Empty where it has none.
  std::map<std::string, std::string> tokenizer;
};

// Files that say how text becomes tokens, and how a model is talked to, wherever a model lies.
const std::vector<std::string>& tokenizer_file_names();

// Whether a path is one of those that open_foreign_model reads, and not a checkpoint of ours.
bool is_foreign_model(const std::string& path);

// Reads headers alone; tensors come when they are asked for. path: a Hugging Face folder or a GGUF file.
// ignored: keys of its config that a person takes to have no effect. Throws ConfigError or CheckpointError
// naming file and key or tensor: what is not understood, what is missing, what contradicts the sizes.
ForeignModel open_foreign_model(const std::string& path, const std::set<std::string>& ignored = {});

}  // namespace longreach
