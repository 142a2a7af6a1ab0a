// UTF-8 and character classes. The ranges of unicode_table.inc are unfolded once into a table for the first
// 2^16 code points; the rest, rare in text, is found by bisection.
#include "data/tokenizers/unicode_classes.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace longreach::data {
namespace {

constexpr uint32_t kRanges[] = {
#include "data/tokenizers/unicode_table.inc"
};
constexpr char32_t kDirect = 0x10000;

CharClass bisect(char32_t code) {
  const auto after = std::upper_bound(std::begin(kRanges), std::end(kRanges), (code << 3) | 7);
  return static_cast<CharClass>(*std::prev(after) & 7);
}

std::array<CharClass, kDirect> unfold() {
  std::array<CharClass, kDirect> table;
  for (char32_t code = 0; code < kDirect; ++code) table[code] = bisect(code);
  return table;
}

bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

}  // namespace

CharClass char_class(char32_t code) {
  static const std::array<CharClass, kDirect> table = unfold();
  if (code < kDirect) return table[code];
  return code < kInvalidByte ? bisect(code) : CharClass::other;
}

bool is_space(char32_t code) {
  if (code < 0x80) return code == ' ' || (code >= 9 && code <= 13);
  return code == 0x85 || (char_class(code) == CharClass::separator);
}

DecodedChar decode_char(std::string_view text, size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  if (lead < 0x80) return {lead, 1};
  const DecodedChar invalid{kInvalidByte + lead, 1};
  const size_t length = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
  if (length == 0 || length > text.size() - at) return invalid;
  char32_t code = lead & (0xFF >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if (!is_continuation(text[at + i])) return invalid;
    code = code << 6 | (static_cast<unsigned char>(text[at + i]) & 0x3F);
  }
  constexpr char32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kSmallest[length] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return invalid;
  return {code, length};
}

size_t previous_char(std::string_view text, size_t end) {
  // A byte that is no continuation always begins a character, so the nearest one before `end` decides.
  for (size_t length = 1; length <= 4 && length <= end; ++length) {
    const size_t begin = end - length;
    if (is_continuation(text[begin])) continue;
    return decode_char(text.substr(0, end), begin).length == length ? begin : end - 1;
  }
  return end - 1;
}

void append_utf8(std::string& out, char32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
    return;
  }
  const int extra = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  constexpr unsigned char kLead[] = {0, 0xC0, 0xE0, 0xF0};
  out += static_cast<char>(kLead[extra] | (code >> (6 * extra)));
  for (int i = extra - 1; i >= 0; --i) out += static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3F));
}

}  // namespace longreach::data
