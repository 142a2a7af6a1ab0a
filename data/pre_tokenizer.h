// Cutting a text into the words that a byte-pair encoding may not merge across, as Hugging Face's tokenizers
// do.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/split_regex.h"

namespace longreach::data {

// What becomes of a match when a text is split by a pattern.
enum class SplitBehavior { isolated, removed, merged_with_previous, merged_with_next, contiguous };

struct SplitStage {
  enum class Pattern { regex, literal, digits, punctuation, space } pattern = Pattern::regex;
  std::optional<SplitRegex> regex;
  std::string literal;
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;  // what the pattern does not match counts as the match
  bool whole = false;   // nothing is split; only the changes below apply

  // Before the split, in this order: spaces become `replace_space` where it is not empty; `prefix` is put in
  // front of a text that does not begin with it, on every piece or only where the whole text begins.
  std::string replace_space, prefix;
  bool prefix_first_only = false;
};

// GPT-2's pattern, which the ByteLevel pre-tokenizer applies with `use_regex`.
extern const char* const kGpt2Pattern;

class PreTokenizer {
 public:
  using Sink = std::function<void(std::string_view)>;

  void add(SplitStage stage) { stages_.push_back(std::move(stage)); }

  // Calls sink with every word in order. The views live as long as the call. `at_start`: the text begins the
  // document. Nothing is lost unless a stage removes its matches. Constant memory, safe from several threads.
  void split(std::string_view text, bool at_start, const Sink& sink) const { run(0, text, at_start, sink); }

 private:
  void run(size_t stage, std::string_view text, bool at_start, const Sink& sink) const;

  std::vector<SplitStage> stages_;
};

}  // namespace longreach::data
