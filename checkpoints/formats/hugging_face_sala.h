// MiniCPM-SALA (arXiv 2602.11761): attention without positions, dense or by chosen blocks (InfLLM-V2), beside
// lightning layers of HypeNet's form.
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
// something, blocks that do not fit each other.
void read_sala(const std::string& file, const HuggingFaceReader& root, ModelConfig& config);

}  // namespace longreach
