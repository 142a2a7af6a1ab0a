// What a tokenizer.json does to a text before it is split: prefixes, replacements, Unicode forms.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/tokenizers/split_regex.h"
#include "data/tokenizers/unicode_forms.h"

namespace longreach::data {

class Normalizer {
 public:
  void add_prepend(std::string prefix);                        // to every text that is not empty
  void add_replace(std::string pattern, std::string content);  // literally; pattern not empty
  void add_replace_regex(SplitRegex pattern, std::string content);
  void add_form(UnicodeForm form);
  bool empty() const { return steps_.empty(); }

  // What is left of the text, in pieces: one, unless a rule removed what stood between bytes that are no
  // UTF-8 and that would make a character if they met.
  // `inside`: the text goes on with one that came before, and nothing is prepended.
  // Throws DataError when it makes more than 16 times as many bytes (and 1 MiB) of the text.
  std::vector<std::string> apply(std::string_view text, bool inside = false) const;

 private:
  struct Step {
    std::string pattern, content;
    std::optional<SplitRegex> regex;
    std::optional<UnicodeForm> form;
    bool prepend = false;
  };
  std::vector<Step> steps_;
};

// Every occurrence of `pattern` (not empty) replaced.
std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content);

}  // namespace longreach::data
