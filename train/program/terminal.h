// Text for people: as wide as the terminal.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace longreach {

// Columns of the terminal that standard output is: COLUMNS where it is set, what the terminal says, 100
// without one.
int64_t terminal_width();

// Breaks lines longer than `width` at spaces. What follows is indented like the second column of the line,
// where it has one (two spaces or more behind the first words) or is one (20 spaces or more before it), else
// by four more than the line. A word is never cut, a line that fits never changed. A line that begins with #
// (a remark in TOML) goes on in remarks.
std::string wrapped(std::string_view text, int64_t width);

}  // namespace longreach
