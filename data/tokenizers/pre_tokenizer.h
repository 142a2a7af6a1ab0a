// Cutting a text into the words that a byte-pair encoding may not merge across, as Hugging Face's tokenizers
// do.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizers/split_regex.h"
#include "data/tokenizers/tokenizer.h"

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
  // front of a text that does not begin with it, on every piece or only where the whole text begins, and
  // never inside a text.
  std::string replace_space, prefix;
  bool prefix_first_only = false;
};

// GPT-2's pattern, which the ByteLevel pre-tokenizer applies with `use_regex`.
extern const char* const kGpt2Pattern;

class PreTokenizer {
 public:
  using Sink = std::function<void(std::string_view)>;

  void add(SplitStage stage) { stages_.push_back(std::move(stage)); }

  using Place = TextState::Place;

  // Calls sink with every word in order. The views live as long as the call. Nothing is lost unless a stage
  // removes its matches. Returns the place behind the text. Constant memory, safe from several threads.
  Place split(std::string_view text, Place place, const Sink& sink) const {
    return run(0, text, place, sink) ? Place::inside : Place::apart;
  }

 private:
  // False when a stage has removed the end of the text.
  bool run(size_t stage, std::string_view text, Place place, const Sink& sink) const;

  std::vector<SplitStage> stages_;
};

}  // namespace longreach::data
