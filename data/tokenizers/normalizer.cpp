// Prefixes, replacements and Unicode forms, one step after the other.
#include "data/tokenizers/normalizer.h"

#include "core/error.h"

namespace longreach::data {
namespace {

// Whether bytes of both sides, no UTF-8 by themselves, would be one character.
bool make_a_character(std::string_view left, std::string_view right) {
  constexpr size_t kLongest = 4;
  for (size_t taken = 1; taken < kLongest && taken <= left.size(); ++taken) {
    std::string both(left.substr(left.size() - taken));
    both += right.substr(0, kLongest - 1);
    const DecodedChar c = decode_char(both, 0);
    if (c.code < kInvalidByte && c.length > taken) return true;
  }
  return false;
}

// What the steps have made so far.
class Pieces {
 public:
  explicit Pieces(size_t limit) : limit_(limit) {}

  void begin_piece() { pieces_.emplace_back(); }

  void add(std::string_view text) {
    pieces_.back() += text;
    check<DataError>((size_ += text.size()) <= limit_, "the normalizer makes more than ", limit_,
                     " bytes of a text, 16 times its own");
  }

  // In place of what stood before `rest`.
  void replace(std::string_view content, std::string_view rest) {
    add(content);
    if (content.empty() && make_a_character(pieces_.back(), rest)) begin_piece();
  }

  std::vector<std::string> take() { return std::move(pieces_); }

 private:
  std::vector<std::string> pieces_;
  size_t size_ = 0, limit_;
};

void replace_regex(std::string_view text, const SplitRegex& pattern, std::string_view content, Pieces& out) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = pattern.match(text, at);
    if (end != SplitRegex::kNoMatch && end > at) {
      out.replace(content, text.substr(end));
      at = end;
    } else {
      const size_t length = decode_char(text, at).length;
      out.add(text.substr(at, length));
      at += length;
    }
  }
}

// kept(text), replaced(rest) in turn.
template <class Kept, class Replaced>
void for_occurrences(std::string_view text, std::string_view pattern, const Kept& kept,
                     const Replaced& replaced) {
  size_t at = 0;
  for (size_t found; (found = text.find(pattern, at)) != std::string_view::npos;
       at = found + pattern.size()) {
    kept(text.substr(at, found - at));
    replaced(text.substr(found + pattern.size()));
  }
  kept(text.substr(at));
}

}  // namespace

std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string out;
  for_occurrences(
      text, pattern, [&](std::string_view kept) { out += kept; }, [&](std::string_view) { out += content; });
  return out;
}

void Normalizer::add_prepend(std::string prefix) {
  steps_.push_back({.content = std::move(prefix), .prepend = true});
}

void Normalizer::add_replace(std::string pattern, std::string content) {
  steps_.push_back({.pattern = std::move(pattern), .content = std::move(content)});
}

void Normalizer::add_replace_regex(SplitRegex pattern, std::string content) {
  steps_.push_back({.content = std::move(content), .regex = std::move(pattern)});
}

void Normalizer::add_form(UnicodeForm form) { steps_.push_back({.form = form}); }

std::vector<std::string> Normalizer::apply(std::string_view text, bool inside) const {
  std::vector<std::string> current = {std::string(text)};
  const size_t limit = 16 * text.size() + (size_t{1} << 20);
  for (const Step& step : steps_) {
    Pieces out(limit);
    for (const std::string& piece : current) {
      out.begin_piece();
      if (step.prepend)
        out.add(piece.empty() || inside || &piece != &current.front() ? piece : step.content + piece);
      else if (step.form)
        out.add(to_unicode_form(piece, *step.form));
      else if (step.regex)
        replace_regex(piece, *step.regex, step.content, out);
      else
        for_occurrences(
            piece, step.pattern, [&](std::string_view kept) { out.add(kept); },
            [&](std::string_view rest) { out.replace(step.content, rest); });
    }
    current = out.take();
  }
  return current;
}

}  // namespace longreach::data
