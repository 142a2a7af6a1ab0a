// Taught gates by themselves: their parameters, in files with their authors' names
// (layers/attention/common/taught_gates.h).
#pragma once
#include <set>
#include <string>
#include <string_view>

#include "checkpoints/checkpoint.h"
#include "models/transformer.h"

namespace longreach {

// Whether a parameter belongs to a gate (model.layers.I.self_attn.GATE.*).
bool is_gate_parameter(std::string_view name);

// Whether a layer of the model has a gate.
bool has_gates(const ModelConfig& config);

// Whether `path` is a file of tensors by its name (.pth, .safetensors), or a folder that holds the authors'
// file in either form.
bool holds_gates(const std::string& path);

// Leaves the gates trainable and nothing else.
void freeze_all_but_gates(Transformer& model);

// Replaces the model's gates by those of `path`: a .pth or .safetensors file, or a folder that holds the
// authors' file, in either form. Throws CheckpointError naming the first missing, unknown or misshapen tensor
// before anything is changed.
void load_gates(Transformer& model, const std::string& path);

// The attention of a layer with the gates of `path`, by the authors' config.json beside their file, without
// its keys that are `ignored`. Throws ConfigError where there is none, or naming the key.
AttentionConfig gated_attention(const std::string& path, const std::set<std::string>& ignored);

// Writes the authors' file of the gates to `folder`, and config.json with `base_model`, their options under
// the authors' keys, and what the authors' loaders build the model from, where transformers has a family for
// it without its gates; returns the file. Throws ConfigError when the model has no gate, CheckpointError when
// the folder cannot be written.
std::string write_gates(const Transformer& model, const std::string& base_model, const std::string& folder);

// Whether `folder` holds such a file and it can be read. Throws CheckpointError when it cannot.
void expect_gates(const std::string& folder);

}  // namespace longreach
