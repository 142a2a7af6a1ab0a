// Adapters of other programs: folders of PEFT, and LongLoRA's trainable_params.bin beside them.
#pragma once
#include <memory>
#include <set>
#include <string>

#include "checkpoints/tensor_source.h"
#include "models/adapter.h"
#include "models/model_config.h"

namespace longreach {

struct PeftAdapter {
  AdapterConfig config;
  std::string base;                             // base_model_name_or_path; empty: not said
  std::shared_ptr<const TensorSource> tensors;  // by the names of an adapted Transformer's parameters
};

// Reads folder/adapter_config.json and the names and shapes in adapter_model.safetensors or
// adapter_model.bin, and in trainable_params.bin where there is one. base: of the model that the adapters are
// for; where it ties its output layer to the embedding, a saved embedding must be both.
// ignored: keys of the config that a person takes to have no effect. Throws ConfigError or CheckpointError
// naming the file and the key or tensor: what is not understood, what a model of ours cannot say, shapes that
// contradict r.
PeftAdapter read_peft(const std::string& folder, const ModelConfig& base,
                      const std::set<std::string>& ignored = {});

// Adds the adapters to a model that has none, and takes their tensors. Throws ConfigError for targets it does
// not have and CheckpointError naming the first tensor that is missing, unknown or misshapen, before a value
// is changed.
void apply_peft(Transformer& model, const PeftAdapter& adapter);

}  // namespace longreach
