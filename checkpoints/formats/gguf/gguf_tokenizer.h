// The tokenizer in a GGUF file as the files that data::load_tokenizer reads.
#pragma once
#include <map>
#include <set>
#include <string>

#include "checkpoints/formats/gguf/gguf_keys.h"

namespace longreach {

// Whether a key is one that gguf_tokenizer reads, or has no effect on how text becomes ids.
bool is_tokenizer_key(const std::string& key);

// `gpt2` becomes tokenizer.json, `llama` the SentencePiece model tokenizer.model; both with
// tokenizer_config.json (ends of a text, chat templates) and generation_config.json. Empty for `none`, and
// where `ignored` has tokenizer.ggml.model. Throws CheckpointError naming the key: another kind, arrays of
// different lengths, more tokens than vocab_size, ids out of range, tokens that come twice.
std::map<std::string, std::string> gguf_tokenizer(const GgufKeys& keys, int64_t vocab_size,
                                                  const std::set<std::string>& ignored);

}  // namespace longreach
