// Adapters by themselves in PEFT's layout.
#pragma once
#include <array>
#include <string>
#include <string_view>

#include "checkpoints/checkpoint.h"
#include "models/adapter.h"
#include "models/transformer.h"

namespace longreach {

// LongLoRA's file of what trains whole beside adapters: parameters that have one of these in their names, by
// the names of the model that is adapted.
inline constexpr const char* kTrainableParams = "trainable_params.bin";
inline constexpr std::array<std::string_view, 2> kTrainableParts{"embed", "norm"};

// Writes folder/adapter_config.json and folder/adapter_model.safetensors as PEFT's save_pretrained does
// (base_model.model.NAME.lora_A.weight, ...; modules_to_save under base_model.model.NAME). A saved embedding
// that is the output layer too is written for both. Saved embeddings and norms stand in trainable_params.bin
// once more, as LongLoRA's scripts ask for them. tensors: the model's, by name, of which the adapters and
// what trains whole are written. base: what PEFT is told the adapters belong to; empty: nothing. The folder
// appears whole or not at all. Throws ConfigError when the model has no adapters or saves parameters in a way
// that PEFT has no words for, CheckpointError when the folder exists and is not empty, or cannot be written.
void write_peft(const Transformer& model, const NamedTensors& tensors, const AdapterConfig& config,
                const std::string& base, const std::string& folder);

}  // namespace longreach
