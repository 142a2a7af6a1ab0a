// MiniCPM-SALA (arXiv 2602.11761): dense attention without positions beside lightning layers of HypeNet's
// form.
#pragma once
#include <nlohmann/json.hpp>

#include "checkpoints/formats/hugging_face_json.h"
#include "models/model_config.h"

namespace longreach {

inline constexpr const char* kSalaType = "minicpm_sala";  // model_type

// Throws ConfigError naming the key or the layer that MiniCPMSALAForCausalLM does not have.
void expect_sala(const ModelConfig& config);

// Adds to a config.json what is MiniCPM-SALA's alone. Its scales (muP) are written so that they do nothing.
// Call after expect_sala.
void add_sala(const ModelConfig& config, nlohmann::ordered_json& json);

// The inverse, of a file whose sizes are in `config`. Throws ConfigError naming the key: scales that do
// something, and `sparse_config`, whose selection of blocks (InfLLM-v2) is not here: such a model is never
// run dense.
void read_sala(const HuggingFaceReader& root, ModelConfig& config);

}  // namespace longreach
