// The model that a Hugging Face config.json describes.
#pragma once
#include <set>
#include <string>

#include "models/model_config.h"

namespace longreach {

// model_type of hugging_face_families(): llama (with SmolLM2), mistral, qwen2, qwen3, minimax, minicpm_sala
// (without its selection of blocks), nsa (flash-linear-attention's).
const std::vector<std::string>& hugging_face_types();

// Reads a config.json, or that of a folder, of one of these families. Keys of ours that the file lacks take
// the family's defaults in transformers where it has one; sizes keep their values. Throws ConfigError naming
// the file and the key: a file that cannot be read, a family that is not known, an option that this decoder
// does not have, a key that is not understood.
void read_hugging_face_config(const std::string& path, ModelConfig& config);

// That of a model with weights, where sizes must be given. ignored: keys of the file that are taken to have
// no effect.
ModelConfig hugging_face_config(const std::string& path, const std::set<std::string>& ignored);

}  // namespace longreach
