// The text in which needles are hidden: sentences, and what each costs in tokens.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/tokenizers/tokenizer.h"

namespace longreach::data {

class Haystack {
 public:
  // The five sentences of the passkey task of Landmark Attention (arXiv 2305.16300), which RULER (arXiv
  // 2404.06654) calls noise.
  static Haystack repeated(const Tokenizer& tokenizer);
  // The sentences of a text file, plain or packed: they end at . ! ? and at the end of a line; white space
  // becomes one space, and what goes on for more than 400 bytes is cut at a space. Throws DataError when the
  // file holds none.
  static Haystack of_file(const std::string& path, const Tokenizer& tokenizer);

  // `count` sentences from number `first` on, with a space between two; the first follows the last.
  std::string text(int64_t first, int64_t count) const;
  bool contains(const std::string& words) const;
  int64_t size() const { return std::ssize(sentences_); }
  // Tokens of `count` sentences from number `first` on, each encoded by itself: near what their text has.
  int64_t tokens(int64_t first, int64_t count) const;
  double mean_tokens() const;

 private:
  Haystack(std::vector<std::string> sentences, const Tokenizer& tokenizer);

  std::vector<std::string> sentences_;
  std::vector<int64_t> before_;  // tokens before a sentence [sentences + 1]
};

// What Haystack::of_file makes of a text.
std::vector<std::string> sentences_of(const std::string& text);

}  // namespace longreach::data
