// SentencePiece models: Unigram and BPE.
#pragma once
#include <memory>
#include <string>

#include "data/tokenizers/tokenizer.h"

namespace longreach::data {

// Reads a .model file. Ids equal those of the SentencePiece library 0.2 for valid UTF-8, and so does the
// decoded text, with these differences: with byte fallback, bytes that are no UTF-8 are kept as byte pieces
// and decode to themselves (the library puts U+FFFD); a Unigram text beyond 1 MiB is cut between words where
// its float scores would lose their precision. As in the library, control pieces ("<s>") written in a text
// are plain text whatever `special` says; user-defined pieces are always recognised. Throws DataError naming
// the file and what is not understood: model types other than unigram and bpe, treat_whitespace_as_suffix,
// denormalization rules.
std::unique_ptr<Tokenizer> load_sentencepiece(const std::string& path);

}  // namespace longreach::data
