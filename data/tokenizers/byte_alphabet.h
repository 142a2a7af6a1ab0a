// GPT-2's alphabet of 256 printable characters, one for each byte, in which byte-level vocabularies are
// written.
#pragma once
#include <string>
#include <string_view>

namespace longreach::data {

// The character of a byte: itself where it is printable Latin-1, otherwise U+0100 onwards in order of the
// bytes.
char32_t alphabet_char(unsigned char byte);

// Bytes to their characters, as UTF-8.
std::string to_byte_alphabet(std::string_view bytes);

// Appends the bytes of a token and returns true; false, with nothing appended, when a character is not of the
// alphabet.
bool append_from_byte_alphabet(std::string_view token, std::string& bytes);

}  // namespace longreach::data
