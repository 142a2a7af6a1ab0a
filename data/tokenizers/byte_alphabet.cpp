// The byte alphabet both ways.
#include "data/tokenizers/byte_alphabet.h"

#include <array>

#include "data/tokenizers/unicode_classes.h"

namespace longreach::data {
namespace {

bool stands_for_itself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<char32_t, 256> chars{};
  std::array<int, 512> bytes{};  // by character; -1: none

  Alphabet() {
    bytes.fill(-1);
    char32_t next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      chars[byte] = stands_for_itself(byte) ? static_cast<char32_t>(byte) : next++;
      bytes[chars[byte]] = byte;
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet table;
  return table;
}

}  // namespace

char32_t alphabet_char(unsigned char byte) { return alphabet().chars[byte]; }

std::string to_byte_alphabet(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) append_utf8(out, alphabet_char(static_cast<unsigned char>(byte)));
  return out;
}

bool append_from_byte_alphabet(std::string_view token, std::string& bytes) {
  const size_t before = bytes.size();
  for (size_t at = 0; at < token.size();) {
    const DecodedChar c = decode_char(token, at);
    const int byte = c.code < alphabet().bytes.size() ? alphabet().bytes[c.code] : -1;
    if (byte < 0) {
      bytes.resize(before);
      return false;
    }
    bytes += static_cast<char>(byte);
    at += c.length;
  }
  return true;
}

}  // namespace longreach::data
