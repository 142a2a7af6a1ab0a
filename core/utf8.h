// Telling UTF-8 from other bytes.
#pragma once
#include <cstddef>
#include <string_view>

namespace longreach {

// Length of the well-formed UTF-8 sequence at text[at], or 0.
size_t utf8_length(std::string_view text, size_t at);

bool is_utf8(std::string_view text);

}  // namespace longreach
