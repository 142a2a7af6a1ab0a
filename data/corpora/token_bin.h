// Flat files of tokens: nanoGPT's .bin (uint16, no header) and llm.c's (256 int32 of header: magic, version,
// number of tokens; uint16 or uint32 after it). Source of the formats: nanoGPT data/*/prepare.py, llm.c
// dev/data/data_common.py.
#pragma once
#include <memory>
#include <string>

#include "data/corpora/token_source.h"

namespace longreach::data {

// The files name no tokenizer: `tokenizer` says which one they were made with, and its eos token where
// documents end (nanoGPT) or begin (llm.c); without an eos the file is one document. Throws DataError that
// begins with the path.
std::shared_ptr<const TokenSource> open_token_bin(const std::string& path, const Tokenizer& tokenizer);

}  // namespace longreach::data
