// Sizes from a Hugging Face config.json.
#pragma once
#include <string>

#include "models/model_config.h"

namespace longreach {

// Reads the sizes of a Llama-like model (llama, mistral, qwen2, qwen3) from a Hugging Face config.json or the
// folder that holds one. Keys of ours that the file lacks keep their values. Throws ConfigError naming the
// file and the key: a file that cannot be read, an architecture or an option that this decoder does not have.
void read_hugging_face_config(const std::string& path, ModelConfig& config);

}  // namespace longreach
