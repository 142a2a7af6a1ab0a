// Models that transformers has no family for: a config of our keys, and the Python that computes them.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "models/model_config.h"

namespace longreach {

inline constexpr const char* kLongreachType = "longreach";  // model_type
inline constexpr const char* kLongreachCode = "modeling_longreach.py";

// That file for a model: the decoder and the kinds of attention in it. Throws ConfigError naming a kind that
// has none.
std::string longreach_code(const ModelConfig& config);

// What config.json says: the keys of [model] under `longreach`, a table of attention for each layer, and
// sizes where other programs look for them.
nlohmann::ordered_json longreach_config(const ModelConfig& config);

// Reads the keys back. file: what errors name. Throws ConfigError.
void read_longreach_config(const nlohmann::json& json, const std::string& file, ModelConfig& config);

}  // namespace longreach
