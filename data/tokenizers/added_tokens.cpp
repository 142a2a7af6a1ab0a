// Finding added tokens, with the rules of Hugging Face's tokenizers for the white space and the words beside
// them.
#include "data/tokenizers/added_tokens.h"

#include <algorithm>
#include <utility>

#include "data/tokenizers/unicode_classes.h"

namespace longreach::data {
namespace {

bool is_word(char32_t code) {
  const CharClass kind = char_class(code);
  return code == '_' || kind == CharClass::letter || kind == CharClass::number || kind == CharClass::mark;
}

bool inside_word(std::string_view text, size_t begin, size_t end) {
  if (begin > 0 && is_word(decode_char(text, previous_char(text, begin)).code)) return true;
  return end < text.size() && is_word(decode_char(text, end).code);
}

}  // namespace

size_t skip_space(std::string_view text, size_t at) {
  while (at < text.size()) {
    const DecodedChar c = decode_char(text, at);
    if (!is_space(c.code)) break;
    at += c.length;
  }
  return at;
}

size_t skip_space_back(std::string_view text, size_t at, size_t limit) {
  while (at > limit) {
    const size_t begin = previous_char(text, at);
    if (!is_space(decode_char(text, begin).code)) break;
    at = begin;
  }
  return std::max(at, limit);
}

void AddedTokens::add(AddedToken token) {
  trie_.insert(token.content, static_cast<int64_t>(tokens_.size()));
  tokens_.push_back(std::move(token));
}

std::vector<AddedTokens::Part> AddedTokens::split(std::string_view text, bool special) const {
  std::vector<Part> parts;
  size_t done = 0;  // everything before is in `parts`
  const auto accept = [&](int64_t index) { return special || !tokens_[index].special; };
  for (size_t at = 0; at < text.size() && !trie_.empty();) {
    const ByteTrie::Match match = trie_.longest(text, at, accept);
    if (match.length == 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[match.value];
    const size_t match_end = at + match.length;
    if (token.single_word && inside_word(text, at, match_end)) {
      at = match_end;
      continue;
    }
    const size_t begin = token.left_strip ? skip_space_back(text, at, done) : at;
    const size_t end = token.right_strip ? skip_space(text, match_end) : match_end;
    if (begin > done) parts.push_back({text.substr(done, begin - done), nullptr});
    parts.push_back({text.substr(begin, end - begin), &token});
    at = done = end;
  }
  if (done < text.size()) parts.push_back({text.substr(done), nullptr});
  return parts;
}

}  // namespace longreach::data
