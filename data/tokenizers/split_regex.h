// A small backtracking matcher for the regular expressions that tokenizers split text with, over bytes that
// hold UTF-8.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "data/tokenizers/unicode_classes.h"

namespace longreach::data {

// A set of characters: categories, ranges, white space, or everything but those.
class CharSet {
 public:
  void add_range(char32_t first, char32_t last);
  void add_class(CharClass kind);
  void add_all_but_class(CharClass kind);
  void add_space() { space_ = true; }
  void add_non_space() { non_space_ = true; }
  void negate() { negated_ = true; }
  void finish();  // after the last change

  // Bytes of the character at `at` (< text.size()) when it is in the set, otherwise 0.
  size_t match(std::string_view text, size_t at) const {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte < 0x80) return ascii_[byte >> 6] >> (byte & 63) & 1;
    const DecodedChar c = decode_char(text, at);
    return contains(c.code) ? c.length : 0;
  }
  const std::array<uint64_t, 2>& ascii() const { return ascii_; }

 private:
  bool contains(char32_t code) const;

  std::vector<std::pair<char32_t, char32_t>> ranges_;
  uint8_t classes_ = 0;  // bit i: CharClass i
  bool space_ = false, non_space_ = false, negated_ = false;
  std::array<uint64_t, 2> ascii_{};
};

// What it understands, as Oniguruma does: alternatives; groups (?:...), (...) and (?i:...) (ASCII letters);
// \p{L}, \p{N}, \p{M}, \p{P}, \p{S}, \p{Z} and \P{...}; \s \S \r \n \t; sets [...] and [^...] with ranges;
// the quantifiers ? * + {m,n} and their possessive forms on a single character, greedy ? and {m,n} on a
// group; lookahead (?=...) and (?!...). Anything else is a DataError that names it. A byte that is no UTF-8
// is a character of no category.
class SplitRegex {
 public:
  static constexpr size_t kNoMatch = ~size_t{0};

  explicit SplitRegex(std::string_view pattern);

  // The end of the match that begins exactly at `at`, or kNoMatch.
  size_t match(std::string_view text, size_t at) const;

  struct Node {
    enum class Kind { set, choice, look, accept } kind = Kind::accept;
    int next = -1;
    int set = -1, min = 1, max = 1;  // of Kind::set
    bool possessive = false;
    bool negated = false;           // of Kind::look
    std::vector<int> alternatives;  // of Kind::choice, in order of preference; of Kind::look: one
    // What the first byte may be, to leave hopeless branches early.
    std::array<uint64_t, 2> first{};
    bool may_be_empty = false;
  };

 private:
  size_t run(int node, std::string_view text, size_t at) const;
  size_t run_set(const Node& node, std::string_view text, size_t at, bool& go_on) const;
  bool can_start(int node, std::string_view text, size_t at) const;

  std::vector<Node> nodes_;
  std::vector<CharSet> sets_;
  int start_ = -1;
};

}  // namespace longreach::data
