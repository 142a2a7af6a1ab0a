// Native sparse attention as flash-linear-attention saves it, `NSAForCausalLM`.
#pragma once
#include <nlohmann/json.hpp>

#include "checkpoints/formats/hugging_face_json.h"
#include "models/model_config.h"

namespace longreach {

inline constexpr const char* kFlaNsaType = "nsa";  // model_type

// Throws ConfigError naming the key or the layer that NSAForCausalLM does not have.
void expect_fla_nsa(const ModelConfig& config);

// What its config.json says beside class and model_type; call after expect_fla_nsa.
nlohmann::ordered_json fla_nsa_keys(const ModelConfig& config);

// The inverse. Throws ConfigError naming the key.
void read_fla_nsa(const HuggingFaceReader& root, ModelConfig& config);

}  // namespace longreach
