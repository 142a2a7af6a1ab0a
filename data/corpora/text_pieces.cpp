// Candidates are the ends of lines, then of words, then any character; each is tried on its neighbourhood,
// which is encoded from several beginnings: a cut that depends on where encoding began (inside a long run of
// one character, say) fails for some of them.
#include "data/corpora/text_pieces.h"

#include <algorithm>
#include <string>

#include "core/error.h"

namespace longreach::data {
namespace {

constexpr size_t kReach = 4096;     // bytes on either side that decide
constexpr size_t kBeginnings = 12;  // at distances that differ by one character
constexpr size_t kTrials = 24;      // of one kind of candidate

bool is_space(char c) { return std::string_view(" \t\r\n\f\v").find(c) != std::string_view::npos; }
bool begins_char(char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }

bool ends_line(std::string_view text, size_t at) { return text[at - 1] == '\n' && !is_space(text[at]); }
bool ends_word(std::string_view text, size_t at) {
  return text[at] == ' ' && !is_space(text[at - 1]) && !is_space(text[at + 1]);
}
bool ends_char(std::string_view text, size_t at) {
  return begins_char(text[at]) && !is_space(text[at]) && !is_space(text[at - 1]);
}

bool holds(std::string_view around, size_t cut, const Tokenizer& tokenizer, const TextState& before) {
  TextState whole = before, parts = before;
  const auto wanted = tokenizer.encode_part(around, true, whole);
  auto found = tokenizer.encode_part(around.substr(0, cut), true, parts);
  const auto rest = tokenizer.encode_part(around.substr(cut), true, parts);
  found.insert(found.end(), rest.begin(), rest.end());
  return found == wanted;
}

// The tokenizer may refuse a text that begins inside of something.
bool may_cut(std::string_view text, size_t at, const Tokenizer& tokenizer, const TextState& state) {
  size_t end = std::min(text.size(), at + kReach);
  while (end < text.size() && end > at && !begins_char(text[end])) --end;
  size_t begin = at - std::min(at, kReach);
  try {
    for (size_t tried = 0; tried < kBeginnings; ++tried) {
      while (begin > 0 && !begins_char(text[begin])) --begin;
      TextState before = state;
      if (begin > 0) before = {.place = TextState::Place::inside};
      if (!holds(text.substr(begin, end - begin), at - begin, tokenizer, before)) return false;
      if (begin == 0) return true;
      --begin;
    }
  } catch (const DataError&) {
    return false;
  }
  return true;
}

}  // namespace

void encode_document(ByteStream& stream, const Tokenizer& tokenizer, size_t piece_bytes,
                     const std::function<void(const std::vector<Token>&)>& consume) {
  const size_t block = std::min(piece_bytes, size_t{1} << 20);
  std::string text;
  TextState state;
  size_t wanted = piece_bytes;
  for (bool ended = false; !ended;) {
    const size_t had = text.size();
    text.resize(had + block);
    const int64_t got = stream.read(text.data() + had, static_cast<int64_t>(block));
    text.resize(had + static_cast<size_t>(got));
    ended = got == 0;
    if (!ended && text.size() < wanted) continue;
    const size_t cut = ended ? text.size() : find_cut(text, tokenizer, state);
    if (cut > 0) consume(tokenizer.encode_part(std::string_view(text).substr(0, cut), true, state));
    text.erase(0, cut);
    wanted = cut > 0 ? piece_bytes : 2 * text.size();
  }
}

size_t find_cut(std::string_view text, const Tokenizer& tokenizer, const TextState& state) {
  const size_t last = text.size() - std::min(text.size() / 4, kReach);
  for (const auto candidate : {ends_line, ends_word, ends_char}) {
    size_t trials = 0;
    for (size_t at = last; at > text.size() / 2 && trials < kTrials; --at) {
      if (at + 1 >= text.size() || !candidate(text, at)) continue;
      if (may_cut(text, at, tokenizer, state)) return at;
      ++trials;
    }
  }
  return 0;
}

}  // namespace longreach::data
