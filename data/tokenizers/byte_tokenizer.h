// Every byte is its own token.
#pragma once
#include "data/tokenizers/tokenizer.h"

namespace longreach::data {

// Ids 0..255 are the bytes; 256, written "<|endoftext|>", ends a document and never comes out of a text.
class ByteTokenizer : public Tokenizer {
 public:
  static constexpr Token kEnd = 256;

  std::vector<Token> encode(std::string_view text, bool special) const override;
  std::string decode(std::span<const Token> tokens) const override;
  int64_t vocab_size() const override { return kEnd + 1; }
  std::optional<Token> bos() const override { return std::nullopt; }
  std::optional<Token> eos() const override { return kEnd; }
  std::optional<Token> id_of(std::string_view token) const override;
  std::string name() const override { return "bytes"; }
  std::string fingerprint() const override;
};

}  // namespace longreach::data
