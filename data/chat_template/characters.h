// Strings as Python sees them: by characters, with its white space and its cases. Texts are UTF-8.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace longreach::data::jinja {

bool is_utf8(std::string_view text);
int64_t count_chars(std::string_view text);
// Bytes of the character at `at`.
size_t char_size(std::string_view text, size_t at);

// What str.isspace, strip and split take for white space.
bool is_blank(char32_t code);
// str.isprintable, which repr asks.
bool is_printable(char32_t code);

enum class Ends { both, left, right };
// str.strip, lstrip, rstrip: of white space, or of the characters in `chars`.
std::string_view strip(std::string_view text, Ends ends, const std::optional<std::string>& chars = {});

// str.upper, lower, capitalize. Throw Fault for characters whose other case is more than one character or
// depends on where it stands.
std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);
// Jinja's filter of the name: words begin behind white space, -, (, {, [ and <.
std::string title(std::string_view text);

}  // namespace longreach::data::jinja
