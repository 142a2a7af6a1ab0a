// Characters as the pre-tokenizers see them: UTF-8 decoding that never loses a byte, and the general
// categories of Unicode 16.0 (the version of Hugging Face's tokenizers 0.2x), white space included.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace longreach::data {

// The major general categories: C (control, format, unassigned, private), L, M, N, P, Z, S.
enum class CharClass : uint8_t { other, letter, mark, number, punctuation, separator, symbol };
inline constexpr int kNumCharClasses = 7;

// A byte that is no part of well-formed UTF-8 decodes to kInvalidByte + byte, of class `other`.
inline constexpr char32_t kInvalidByte = 0x110000;

struct DecodedChar {
  char32_t code = 0;
  size_t length = 0;  // bytes taken: 1 for an invalid byte
};

CharClass char_class(char32_t code);

// Unicode's White_Space property, which is what \s means.
bool is_space(char32_t code);

// The character at `at` (< text.size()). Surrogates, overlong forms and truncated sequences are invalid
// bytes.
DecodedChar decode_char(std::string_view text, size_t at);

// Where the character that ends at `end` (> 0) begins.
size_t previous_char(std::string_view text, size_t end);

void append_utf8(std::string& out, char32_t code);

}  // namespace longreach::data
