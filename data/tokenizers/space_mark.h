// U+2581, which stands for a space in the vocabularies of SentencePiece, and the places where such a text may
// be cut.
#pragma once
#include <string_view>

namespace longreach::data {

inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

// The first place after `from` where a mark follows something else than a mark; the end of the text without
// one. When no piece of a vocabulary crosses such a place, the text can be encoded in the stretches between
// them.
inline size_t next_marked_word(std::string_view text, size_t from) {
  while (text.substr(from).starts_with(kSpaceMark)) from += kSpaceMark.size();
  const size_t mark = text.find(kSpaceMark, from);
  return mark == std::string_view::npos ? text.size() : mark;
}

inline bool crosses_marked_words(std::string_view piece) { return next_marked_word(piece, 0) < piece.size(); }

}  // namespace longreach::data
