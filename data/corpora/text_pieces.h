// Documents too long to be encoded at once, with the ids that they would have at once.
#pragma once
#include <cstddef>
#include <functional>
#include <string_view>
#include <vector>

#include "data/corpora/byte_stream.h"
#include "data/tokenizers/tokenizer.h"

namespace longreach::data {

// Encodes what is left of a stream as one document, in pieces of about `piece_bytes` (more where no cut is
// found), and calls `consume` with the tokens of each. A stream without a byte has no piece.
void encode_document(ByteStream& stream, const Tokenizer& tokenizer, size_t piece_bytes,
                     const std::function<void(const std::vector<Token>&)>& consume);

// A place in the second half of `text`, which goes on from `state` and will itself go on, where no token,
// word or rule of the tokenizer reaches across: found by encoding what lies around it in one and in two
// parts. 0 where there is none; more text has to be read then.
size_t find_cut(std::string_view text, const Tokenizer& tokenizer, const TextState& state);

}  // namespace longreach::data
