// What people write who take TOML for YAML, Python or INI, and how TOML wants it.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace longreach {

// "; did you mean kind = "nsa"?" and the like for the line (counted from 1) that a TOML parser refused; empty
// when it is none of the mistakes known here.
std::string toml_hint(std::string_view toml, size_t line);

}  // namespace longreach
