// Models of families that transformers knows.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "models/model_config.h"

namespace longreach {

// The family of which a resolved config is a model, by its model_type: "llama", "mistral", "qwen2", "qwen3",
// "minimax" (one expert).
// Throws ConfigError naming the key or the layer that none of them has.
std::string hugging_face_family(const ModelConfig& config);

// What config.json of such a model says of what it computes, in keys that transformers 4.45 and 5 read alike.
// Errors: hugging_face_family.
nlohmann::ordered_json hugging_face_keys(const ModelConfig& config);

}  // namespace longreach
