// A checkpoint of a model that no run has trained.
#pragma once
#include <filesystem>
#include <string>

#include "checkpoints/checkpoint.h"
#include "models/adapter.h"
#include "models/transformer.h"
#include "train/run_config.h"
#include "train/saved_model.h"

namespace longreach::test {

// Saves the model that a run of `config` begins with under root; returns the step folder. Its adapters are
// made to matter.
inline std::string save_untrained(RunConfig config, const std::string& root) {
  config.data.train = {"none.txt"};
  const std::string toml = to_toml(fields_of(config));
  config.model.resolve(257);
  Transformer model(config.model, 7);
  add_adapters(model, config.adapter, 7);
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : model_tensors(model))
    if (name.find("lora_B") != std::string::npos || name.ends_with(".bias")) tensor.normal_(0.0, 0.2);
  std::filesystem::create_directories(root);
  return save_checkpoint(root, {.step = 1, .model = model_tensors(model), .texts = {{"config.toml", toml}}});
}

}  // namespace longreach::test
