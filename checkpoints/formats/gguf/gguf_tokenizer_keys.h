// A tokenizer's files as the keys of a GGUF file.
#pragma once
#include <cstdint>
#include <map>
#include <string>

#include "checkpoints/formats/gguf/gguf_key_writer.h"

namespace longreach {

// files: name -> contents, as in ForeignModel. A byte-level tokenizer.json becomes `gpt2`, tokenizer.model
// (SentencePiece's pairs) `llama`, no files `none`. Ids up to vocab_size that stand for no token get unused
// ones, as runtimes expect one for each row of the embedding. Throws ConfigError naming the file and what in
// it GGUF has no words for.
void add_tokenizer_keys(const std::map<std::string, std::string>& files, int64_t vocab_size,
                        GgufKeyWriter& keys);

}  // namespace longreach
