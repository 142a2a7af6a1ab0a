// Folders as Hugging Face's transformers saves them.
#pragma once
#include <set>
#include <string>

#include "checkpoints/formats/foreign_model.h"

namespace longreach {

// Whether a folder has config.json and weights.
bool is_hugging_face_model(const std::string& folder);

// As open_foreign_model. Weights lie in model.safetensors or pytorch_model.bin, or in the shards that
// model.safetensors.index.json or pytorch_model.bin.index.json lists (safetensors first), with or without the
// prefix `model.`; links are followed. Buffers that
// follow from the config are left out (rotary_emb.inv_freq, slopes of MiniMax), and the router of a single
// expert, which decides nothing.
ForeignModel open_hugging_face_model(const std::string& folder, const std::set<std::string>& ignored);

}  // namespace longreach
