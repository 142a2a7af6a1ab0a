// Splitting by patterns. Pieces stream depth-first through the stages, so no list of them is ever held.
#include "data/tokenizers/pre_tokenizer.h"

#include <utility>

namespace longreach::data {

const char* const kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

struct Span {
  size_t begin = 0, end = 0;
};

bool char_matches(SplitStage::Pattern pattern, char32_t code) {
  switch (pattern) {
    case SplitStage::Pattern::digits:
      return char_class(code) == CharClass::number;
    case SplitStage::Pattern::space:
      return is_space(code);
    case SplitStage::Pattern::punctuation: {
      const bool ascii_symbol = code < 0x80 && char_class(code) == CharClass::symbol;
      return ascii_symbol || char_class(code) == CharClass::punctuation;
    }
    default:
      return false;
  }
}

// The first non-empty match at or after `from`; an empty span at the end when there is none.
Span next_match(const SplitStage& stage, std::string_view text, size_t from) {
  const Span none{text.size(), text.size()};
  if (stage.pattern == SplitStage::Pattern::literal) {
    const size_t begin = text.find(stage.literal, from);
    return begin == std::string_view::npos ? none : Span{begin, begin + stage.literal.size()};
  }
  while (from < text.size()) {
    const DecodedChar c = decode_char(text, from);
    if (stage.pattern == SplitStage::Pattern::regex) {
      const size_t end = stage.regex->match(text, from);
      if (end != SplitRegex::kNoMatch && end > from) return {from, end};
    } else if (char_matches(stage.pattern, c.code)) {
      return {from, from + c.length};
    }
    from += c.length;
  }
  return none;
}

// Turns the stream of (span, is it a match) into pieces, as the behaviour says.
class Assembler {
 public:
  Assembler(SplitBehavior behavior, const std::function<void(Span)>& emit)
      : behavior_(behavior), emit_(emit) {}

  void add(Span span, bool match) {
    if (span.begin == span.end) return;
    switch (behavior_) {
      case SplitBehavior::isolated:
        emit_(span);
        return;
      case SplitBehavior::removed:
        if (!match) emit_(span);
        return;
      case SplitBehavior::contiguous:
        join(span, match, held_.end > held_.begin && match == held_match_);
        return;
      case SplitBehavior::merged_with_previous:
        join(span, match, match && !held_match_);
        return;
      case SplitBehavior::merged_with_next:
        join(span, match, !match && held_match_);
        return;
    }
  }

  void finish() {
    if (held_.end > held_.begin) emit_(held_);
  }

 private:
  void join(Span span, bool match, bool merge) {
    if (!merge || held_.end == held_.begin) {
      finish();
      held_ = span;
    } else {
      held_.end = span.end;
    }
    held_match_ = match;
  }

  SplitBehavior behavior_;
  const std::function<void(Span)>& emit_;
  Span held_;
  bool held_match_ = false;
};

void split_stage(const SplitStage& stage, std::string_view text, const std::function<void(Span)>& emit) {
  Assembler assembler(stage.behavior, emit);
  for (size_t at = 0; at < text.size();) {
    const Span match = next_match(stage, text, at);
    assembler.add({at, match.begin}, stage.invert);
    assembler.add(match, !stage.invert);
    at = match.end;
  }
  assembler.finish();
}

// The text with the changes of the stage, in `storage` when there are any.
std::string_view change(const SplitStage& stage, std::string_view text, PreTokenizer::Place place,
                        std::string& storage) {
  const bool replace = !stage.replace_space.empty() && text.find(' ') != std::string_view::npos;
  if (replace) {
    for (const char byte : text) {
      if (byte == ' ')
        storage += stage.replace_space;
      else
        storage += byte;
    }
    text = storage;
  }
  using Place = PreTokenizer::Place;
  const bool wanted = stage.prefix_first_only ? place == Place::start : place != Place::inside;
  if (stage.prefix.empty() || !wanted || text.starts_with(stage.prefix)) return text;
  storage = stage.prefix + std::string(text);
  return storage;
}

}  // namespace

bool PreTokenizer::run(size_t index, std::string_view text, Place place, const Sink& sink) const {
  if (text.empty()) return false;
  if (index == stages_.size()) {
    sink(text);
    return true;
  }
  const SplitStage& stage = stages_[index];
  std::string storage;
  text = change(stage, text, place, storage);
  if (stage.whole) return run(index + 1, text, place, sink);
  bool kept_end = false;
  split_stage(stage, text, [&](Span span) {
    const Place inner = span.begin == 0 ? place : Place::apart;
    const bool kept = run(index + 1, text.substr(span.begin, span.end - span.begin), inner, sink);
    kept_end = kept && span.end == text.size();
  });
  return kept_end;
}

}  // namespace longreach::data
