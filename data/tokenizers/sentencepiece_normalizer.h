// SentencePiece's text normalization: rules from a double-array trie, white space, the dummy prefix.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizers/byte_trie.h"
#include "data/tokenizers/sentencepiece_model.h"
#include "data/tokenizers/tokenizer.h"

namespace longreach::data {

class SentencePieceNormalizer {
 public:
  // `keep_invalid`: a byte that is no UTF-8 stays (byte fallback can write it); otherwise it becomes U+FFFD.
  // Throws DataError when the rules are broken.
  SentencePieceNormalizer(const SentencePieceModel& model, bool keep_invalid);

  struct Result {
    std::string text;
    // Where no character takes bytes of both sides: a rule that removes what stood between two bytes that are
    // no UTF-8 must not make a character of them. Ascending.
    std::vector<size_t> cuts;
  };
  // The next part of a text that goes on from `state`.
  Result normalize(std::string_view text, TextState& state) const;

  // The user-defined pieces, which no rule touches.
  const ByteTrie& user_defined() const { return user_defined_; }

 private:
  void check_trie() const;
  struct Prefix {
    std::string_view normalized;
    size_t consumed = 0;
    bool invalid = false;  // a byte that is no UTF-8, kept
  };
  std::string_view without_leading_space(std::string_view text) const;
  // The longest rule, user-defined piece or else character at the beginning of `text`.
  Prefix normalize_prefix(std::string_view text) const;

  std::vector<uint32_t> trie_;  // Darts units
  std::string replacements_;    // NUL-terminated texts
  ByteTrie user_defined_;
  bool keep_invalid_, add_dummy_prefix_, remove_extra_whitespaces_;
  std::string space_;
};

}  // namespace longreach::data
