// Where a model comes from: a checkpoint of ours, or another program's files.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "checkpoints/checkpoint.h"
#include "data/tokenizers/tokenizer.h"
#include "train/run_config.h"

namespace longreach {

struct ModelOrigin {
  std::string path;  // the step folder, or the foreign folder or file
  int64_t step = 0;
  std::shared_ptr<const TensorSource> tensors;  // parameters and buffers
  // File name -> contents, as a checkpoint keeps them: config.toml, tokenizer/tokenizer.json, ...
  std::map<std::string, std::string> texts;

  // The config that the model was trained with, or, of a foreign one, its [model] and defaults. Throws
  // CheckpointError where there is none.
  RunConfig config() const;
};

// path: a run folder, its checkpoint folder (the newest good step is taken), one step folder (verified, but
// for the optimizer's state), or a model as open_foreign_model reads it, with the keys of its config that are
// `ignored`. Throws CheckpointError or ConfigError naming the file.
ModelOrigin open_origin(const std::string& path, const std::set<std::string>& ignored = {});

// The config of the model at `path`, without reading tensors; nothing when a checkpoint holds none or there
// is none. data.tokenizer is where its tokenizer lies. Throws CheckpointError or ConfigError naming the file.
std::optional<RunConfig> saved_config(const std::string& path);

// The tokenizer that came with a model; null where none did.
std::shared_ptr<const data::Tokenizer> tokenizer_of(const ModelOrigin& origin);

}  // namespace longreach
