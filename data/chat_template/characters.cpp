// Characters and cases by utf8proc, whose simple mappings are Python's but for the characters refused here.
#include "data/chat_template/characters.h"

#include <utf8proc.h>

#include "core/error.h"
#include "data/chat_template/value.h"
#include "data/tokenizers/unicode_classes.h"

namespace longreach::data::jinja {
namespace {

constexpr char32_t kCapitalSigma = 0x3A3, kCapitalIWithDot = 0x130;

std::string code_name(char32_t code) {
  std::ostringstream out;
  out << "U+" << std::hex << std::uppercase << static_cast<uint32_t>(code);
  return out.str();
}

// A character that folds to several is one whose upper case may be several too.
bool folds_to_several(char32_t code) {
  utf8proc_int32_t folded[4];
  int last_class = 0;
  return utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), folded, 4, UTF8PROC_CASEFOLD,
                                 &last_class) > 1;
}

template <class Map>
std::string mapped(std::string_view text, const Map& map) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const DecodedChar c = decode_char(text, at);
    append_utf8(out, map(c.code));
    at += c.length;
  }
  return out;
}

char32_t upper_of(char32_t code) {
  check<Fault>(code < 0x80 || !folds_to_several(code), "the upper case of ", code_name(code),
               " is not known");
  return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(code)));
}

char32_t title_of(char32_t code) {
  check<Fault>(code < 0x80 || !folds_to_several(code), "the title case of ", code_name(code),
               " is not known");
  return static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(code)));
}

char32_t lower_of(char32_t code) {
  check<Fault>(code != kCapitalSigma && code != kCapitalIWithDot, "the lower case of ", code_name(code),
               " is not known");
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code)));
}

}  // namespace

bool is_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const DecodedChar c = decode_char(text, at);
    if (c.code >= kInvalidByte) return false;
    at += c.length;
  }
  return true;
}

int64_t count_chars(std::string_view text) {
  int64_t count = 0;
  for (const char byte : text) count += (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
  return count;
}

size_t char_size(std::string_view text, size_t at) { return decode_char(text, at).length; }

bool is_blank(char32_t code) { return is_space(code) || (code >= 0x1C && code <= 0x1F); }

bool is_printable(char32_t code) {
  if (code == ' ') return true;
  const CharClass kind = char_class(code);
  return kind != CharClass::other && kind != CharClass::separator;
}

std::string_view strip(std::string_view text, Ends ends, const std::optional<std::string>& chars) {
  const auto goes = [&](size_t at, size_t length) {
    if (chars) return chars->find(text.substr(at, length)) != std::string::npos;
    return is_blank(decode_char(text, at).code);
  };
  size_t begin = 0, end = text.size();
  while (ends != Ends::right && begin < end && goes(begin, char_size(text, begin)))
    begin += char_size(text, begin);
  for (size_t before; ends != Ends::left && begin < end; end = before) {
    before = previous_char(text, end);
    if (!goes(before, end - before)) break;
  }
  return text.substr(begin, end - begin);
}

std::string upper(std::string_view text) { return mapped(text, upper_of); }
std::string lower(std::string_view text) { return mapped(text, lower_of); }

std::string capitalize(std::string_view text) {
  bool first = true;
  return mapped(text, [&](char32_t code) {
    const char32_t out = first ? title_of(code) : lower_of(code);
    first = false;
    return out;
  });
}

std::string title(std::string_view text) {
  bool first = true;
  return mapped(text, [&](char32_t code) {
    const bool border =
        is_blank(code) || code == '-' || code == '(' || code == '{' || code == '[' || code == '<';
    const char32_t out = border ? code : first ? upper_of(code) : lower_of(code);
    first = border;
    return out;
  });
}

}  // namespace longreach::data::jinja
