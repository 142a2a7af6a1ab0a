// The BPE model of a tokenizer.json: a vocabulary and ranked merges, on bytes (GPT-2, Llama 3, SmolLM2, Qwen)
// or on characters with byte fallback (Llama 2).
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizers/bpe_merge.h"
#include "data/tokenizers/flat_map.h"
#include "data/tokenizers/vocabulary.h"

namespace longreach::data {

struct BpeOptions {
  bool byte_level = true;      // symbols are bytes written in GPT-2's alphabet; otherwise characters
  bool byte_fallback = false;  // an unknown character becomes its bytes <0x00>..<0xFF>
  bool ignore_merges = false;  // a word that is a token is that token
  bool fuse_unknown = false;   // neighbouring unknown characters make one unknown token
  std::optional<Token> unknown;
};

class BpeModel {
 public:
  // merges: (left, right, merged) in order of rank; a repeated pair has its last rank.
  struct Merge {
    Token left, right, merged;
  };
  BpeModel(const Vocabulary& vocabulary, const std::vector<Merge>& merges, const BpeOptions& options);

  // Appends the tokens of a word. A valid character that the vocabulary cannot write is left out, as Hugging
  // Face's tokenizers do; throws DataError for a byte that is no UTF-8 and has no token.
  void encode(std::string_view word, BpeScratch& scratch, std::vector<Token>& out) const;

  const BpeOptions& options() const { return options_; }

 private:
  void encode_word(std::string_view word, BpeScratch& scratch, std::vector<Token>& out) const;
  void add_bytes(std::string_view word, std::vector<MergeSymbol>& symbols) const;
  void add_characters(std::string_view word, std::vector<MergeSymbol>& symbols) const;
  void add_unknown(std::string_view word, size_t begin, size_t length,
                   std::vector<MergeSymbol>& symbols) const;

  const Vocabulary& vocabulary_;
  BpeOptions options_;
  FlatMap merges_;                     // left << 32 | right -> rank << 32 | merged
  std::array<Token, 256> byte_ids_{};  // -1: none; of byte-level symbols or of byte fallback
  bool cut_at_marks_ = false;          // no merge crosses the beginning of a word marked with U+2581
};

}  // namespace longreach::data
