// Models of families that other programs know.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/model_config.h"

namespace longreach {

inline constexpr const char* kAnyFamily = "auto";

struct HuggingFaceFamily {
  std::string type, architecture;  // model_type, and the class
  std::vector<std::string> kinds;  // of attention that its layers may be of
};

// Those that are read and written.
const std::vector<HuggingFaceFamily>& hugging_face_families();

// The family of which a resolved config is a model, by its model_type: one that transformers knows ("llama",
// "mistral", "qwen2", "qwen3", "minimax" of one expert), or `wanted`, which may be another ("minicpm_sala",
// "nsa"). Throws ConfigError naming the key or the layer that none of them, or the one that is wanted, has.
std::string hugging_face_family(const ModelConfig& config, const std::string& wanted = kAnyFamily);

// What config.json of such a model says of what it computes, in keys that transformers 4.45 and 5 read alike.
// Errors: hugging_face_family.
nlohmann::ordered_json hugging_face_keys(const ModelConfig& config, const std::string& wanted = kAnyFamily);

}  // namespace longreach
