#include "core/toml_characters.h"

#include <algorithm>

namespace longreach {
namespace {

// Where the string that begins at `at` ends: behind its closing quotes, at the end of the line of one that
// may not go on, or at the end of the text.
size_t end_of_string(std::string_view text, size_t at) {
  const char quote = text[at];
  const std::string_view three(quote == '"' ? "\"\"\"" : "'''");
  const bool lines = text.substr(at).starts_with(three);
  const std::string_view closing = lines ? three : three.substr(0, 1);
  for (at += closing.size(); at < text.size(); ++at) {
    if (!lines && text[at] == '\n') return at;
    if (text.substr(at).starts_with(closing)) return at + closing.size();
    if (quote == '"' && text[at] == '\\' && at + 1 < text.size() && text[at + 1] != '\n') ++at;
  }
  return text.size();
}

}  // namespace

std::optional<size_t> line_of_stray_character(std::string_view toml_text) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  size_t at = toml_text.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
  while (at < toml_text.size()) {
    const char c = toml_text[at];
    if (c == '"' || c == '\'') {
      at = end_of_string(toml_text, at);
    } else if (c == '#') {
      at = std::min(toml_text.find('\n', at), toml_text.size());
    } else if (static_cast<unsigned char>(c) >= 0x80) {
      const auto before = toml_text.substr(0, at);
      return static_cast<size_t>(std::count(before.begin(), before.end(), '\n')) + 1;
    } else {
      ++at;
    }
  }
  return std::nullopt;
}

}  // namespace longreach
