// A short name for a vocabulary and its rules.
#pragma once
#include <string>
#include <string_view>

namespace longreach::data {

// XXH3-64 as 16 hexadecimal digits.
std::string hash_hex(std::string_view bytes);

}  // namespace longreach::data
