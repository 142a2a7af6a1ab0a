// Models in GGUF files.
#pragma once
#include <set>
#include <string>

#include "checkpoints/formats/foreign_model.h"

namespace longreach {

// Whether a path is a regular file that begins as GGUF files do.
bool is_gguf_file(const std::string& path);

// As open_foreign_model: architectures `llama`, `qwen2` and `qwen3`, with the tokenizer inside
// (gguf_tokenizer.h). Every key has a meaning here, is known to have no effect, or is refused by name unless
// `ignored` has it. Tensors come as float32, rows of q and k in the order that they have here.
ForeignModel open_gguf_model(const std::string& path, const std::set<std::string>& ignored = {});

}  // namespace longreach
