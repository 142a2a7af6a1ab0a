// Tokens that are found in the text before anything else is done to it: special ones ("<|im_end|>") and
// ordinary ones.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizers/byte_trie.h"
#include "data/tokenizers/tokenizer.h"

namespace longreach::data {

// The end of the white space that begins at `at`; the beginning of that which ends at `at`, from `limit` on.
size_t skip_space(std::string_view text, size_t at);
size_t skip_space_back(std::string_view text, size_t at, size_t limit);

struct AddedToken {
  std::string content;
  Token id = 0;
  bool special = false;
  bool left_strip = false, right_strip = false;  // takes the white space beside it
  bool single_word = false;                      // not inside a word
  bool normalized = false;                       // sought in the normalized text
};

class AddedTokens {
 public:
  void add(AddedToken token);

  // A piece of text, or a token found there.
  struct Part {
    std::string_view text;
    const AddedToken* token = nullptr;
  };
  // The leftmost and there longest tokens; special ones only when `special` is true.
  std::vector<Part> split(std::string_view text, bool special) const;

  bool empty() const { return tokens_.empty(); }
  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  std::vector<AddedToken> tokens_;
  ByteTrie trie_;
};

}  // namespace longreach::data
