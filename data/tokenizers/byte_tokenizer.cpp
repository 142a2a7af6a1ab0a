// Bytes to ids and back.
#include "data/tokenizers/byte_tokenizer.h"

#include "core/error.h"
#include "data/common/fingerprint.h"

namespace longreach::data {
namespace {
constexpr std::string_view kEndText = "<|endoftext|>";
}

std::vector<Token> ByteTokenizer::encode(std::string_view text, bool) const {
  std::vector<Token> tokens(text.size());
  for (size_t i = 0; i < text.size(); ++i) tokens[i] = static_cast<unsigned char>(text[i]);
  return tokens;
}

std::string ByteTokenizer::decode(std::span<const Token> tokens) const {
  std::string out;
  out.reserve(tokens.size());
  for (const Token id : tokens) {
    check<DataError>(id >= 0 && id <= kEnd, "bytes: no token has the id ", id, ", allowed are 0 to ", kEnd);
    if (id == kEnd)
      out += kEndText;
    else
      out += static_cast<char>(id);
  }
  return out;
}

std::optional<Token> ByteTokenizer::id_of(std::string_view token) const {
  if (token == kEndText) return kEnd;
  if (token.size() == 1) return static_cast<unsigned char>(token[0]);
  return std::nullopt;
}

std::string ByteTokenizer::fingerprint() const { return hash_hex("bytes, 256 <|endoftext|>"); }

}  // namespace longreach::data
