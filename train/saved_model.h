// A model out of a checkpoint, ready to use: its config, its tokenizer, its parameters.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoints/checkpoint.h"
#include "data/tokenizers/tokenizer.h"
#include "models/transformer.h"
#include "train/model_origin.h"
#include "train/run_config.h"

namespace longreach {

struct SavedModel {
  std::string path;  // the step folder, or the foreign folder or file
  int64_t step = 0;
  RunConfig config;
  std::map<std::string, std::string> texts;          // the checkpoint's other files
  std::shared_ptr<const data::Tokenizer> tokenizer;  // null: it came without one
  std::shared_ptr<Transformer> model;

  // The ids that end a text by its generation_config.json (eos_token_id); empty where it has none. Throws
  // ConfigError where that is no id or list of ids.
  std::vector<int64_t> ends_of_text() const;
  // Throws CheckpointError where the model came without a tokenizer.
  const data::Tokenizer& expect_tokenizer() const;
};

// path: as open_origin. Names and shapes are compared before anything is allocated. Throws CheckpointError or
// ConfigError naming the file. implementation: of its layers. Parameters that may_be_new accepts have no
// values yet where the origin has none.
SavedModel load_saved_model(const std::string& path);
SavedModel load_saved_model(const ModelOrigin& origin, Implementation implementation = Implementation::fused,
                            const std::function<bool(std::string_view)>& may_be_new = nullptr);

// Leaves the kernels of attention to the machine: what trained the weights does not bind who uses them.
void free_backends(ModelConfig& model);

// Parameters and buffers by name, in a fixed order.
NamedTensors model_tensors(const Transformer& model);

// Throws CheckpointError naming the key when adapters in the checkpoint were made with other settings than
// `own` (but lora_dropout and base_dtype, which they do not depend on), or by a run that had them where this
// one has none, or the other way round. may_be_new: a checkpoint without adapters may start a run that has
// them. `origin` names the checkpoint.
void expect_adapter(const TensorSource& tensors, const std::map<std::string, std::string>& texts,
                    AdapterConfig own, const std::string& origin, bool may_be_new);

// Copies tensors into the model. Throws CheckpointError that names the first missing, unknown or misshapen
// tensor, before anything is changed. `origin` names the checkpoint in the message. Parameters that
// may_be_new accepts keep their initial values when the checkpoint has none of them; returns their names.
std::vector<std::string> load_model_tensors(
    Transformer& model, const TensorSource& tensors, const std::string& origin,
    const std::function<bool(std::string_view)>& may_be_new = nullptr);

// The files a checkpoint keeps of a tokenizer: "tokenizer/tokenizer.json" -> contents; empty for bytes. spec:
// as TokenizerFolder takes it.
std::map<std::string, std::string> tokenizer_texts(const std::string& spec);

}  // namespace longreach
