// utf8proc takes well-formed text whole and writes four bytes a character on the way. So it is given short
// pieces: an ASCII character never changes what comes before it, nor does a byte that is no character.
#include "data/tokenizers/unicode_forms.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>
#include <new>

#include "core/error.h"
#include "data/tokenizers/unicode_classes.h"

namespace longreach::data {
namespace {

utf8proc_option_t options_of(UnicodeForm form) {
  const bool compose = form == UnicodeForm::nfc || form == UnicodeForm::nfkc;
  const bool compatible = form == UnicodeForm::nfkc || form == UnicodeForm::nfkd;
  return static_cast<utf8proc_option_t>(UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                                        (compatible ? UTF8PROC_COMPAT : 0));
}

bool is_ascii(char byte) { return static_cast<unsigned char>(byte) < 0x80; }

void append_piece(std::string& out, std::string_view piece, utf8proc_option_t options) {
  utf8proc_uint8_t* raw = nullptr;
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(piece.data()),
                                   static_cast<utf8proc_ssize_t>(piece.size()), &raw, options);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> mapped(raw, &std::free);
  if (length == UTF8PROC_ERROR_NOMEM) throw std::bad_alloc();
  check<Error>(length >= 0, "utf8proc: ", utf8proc_errmsg(length));
  out.append(reinterpret_cast<const char*>(mapped.get()), static_cast<size_t>(length));
}

// The end of the piece at `begin`: at most one ASCII character, then all well-formed characters that are not
// ASCII.
size_t piece_end(std::string_view text, size_t begin) {
  size_t end = begin + (is_ascii(text[begin]) ? 1 : 0);
  while (end < text.size() && !is_ascii(text[end])) {
    const DecodedChar c = decode_char(text, end);
    if (c.code >= kInvalidByte) break;
    end += c.length;
  }
  return end;
}

}  // namespace

std::string to_unicode_form(std::string_view text, UnicodeForm form) {
  const utf8proc_option_t options = options_of(form);
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t end = piece_end(text, at);
    if (end - at > 1) {
      append_piece(out, text.substr(at, end - at), options);
      at = end;
    } else {  // ASCII alone, or a byte that is no character
      out += text[at++];
    }
  }
  return out;
}

}  // namespace longreach::data
