// Which ids stand for a token.
#pragma once
#include <vector>

#include "data/tokenizers/tokenizer.h"

namespace longreach::data {

// By id: whether the tokenizer can decode it. A vocabulary may leave gaps below vocab_size().
std::vector<bool> known_ids(const Tokenizer& tokenizer);

}  // namespace longreach::data
