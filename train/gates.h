// Gates by themselves: the parameters called attn_gate of a model, in files with the authors' names.
#pragma once
#include <string>
#include <string_view>

#include "checkpoints/checkpoint.h"
#include "models/transformer.h"

namespace longreach {

// Whether a parameter belongs to a gate (model.layers.I.self_attn.attn_gate.*).
bool is_gate_parameter(std::string_view name);

// Leaves the gates trainable and nothing else.
void freeze_all_but_gates(Transformer& model);

// Replaces the model's gates by those of `path`: a .safetensors file, or a folder that holds
// attn_gate_weights.safetensors. Throws CheckpointError naming the first missing, unknown or misshapen tensor
// before anything is changed.
void load_gates(Transformer& model, const std::string& path);

// Writes folder/attn_gate_weights.safetensors, under the names of SeerAttention's attn_gate_weights.pth, and
// folder/config.json with `base_model` and the authors' seerattn_* keys. Throws ConfigError when the model has no
// gate, CheckpointError when the folder cannot be written.
void write_gates(const Transformer& model, const std::string& base_model, const std::string& folder);

}  // namespace longreach
