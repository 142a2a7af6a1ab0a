// Characters where TOML has none.
#pragma once
#include <cstddef>
#include <optional>
#include <string_view>

namespace longreach {

// The line, from 1, of the first byte beyond ASCII that stands in no string and no comment, where TOML 1.0
// allows none. toml++ 3.3 asks there whether it is white space, in a way that C++ leaves undefined for most
// letters.
std::optional<size_t> line_of_stray_character(std::string_view toml_text);

}  // namespace longreach
