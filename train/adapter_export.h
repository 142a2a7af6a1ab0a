// A model with adapters for others: the adapters by themselves in PEFT's layout, or the model with them merged in.
#pragma once
#include <string>

#include "models/adapter.h"
#include "train/saved_model.h"

namespace longreach {

// Writes folder/adapter_config.json and folder/adapter_model.safetensors as PEFT's save_pretrained does
// (base_model.model.NAME.lora_A.weight, ...; modules_to_save under base_model.model.NAME). A saved embedding that is the
// output layer too is written for both. base: what PEFT is told the
// adapters belong to; empty: nothing. The folder appears whole or not at all.
// Throws ConfigError when the model has no adapters or saves parameters in a way that PEFT has no words for,
// CheckpointError when the folder exists and is not empty, or cannot be written.
void write_peft(const Transformer& model, const AdapterConfig& config, const std::string& base,
                const std::string& folder);

// Writes folder/step-NNNNNNNN, a checkpoint like the one at `checkpoint` whose weights hold W + scale B A and whose
// config has no adapters; the optimizer stays behind. Errors as above.
void write_merged(const std::string& checkpoint, const std::string& folder);

}  // namespace longreach
