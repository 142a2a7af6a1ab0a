#include "train/program/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>

namespace longreach {
namespace {

constexpr int64_t kWithoutTerminal = 100, kNarrowest = 20;
constexpr size_t kColumn = 20;  // a line that begins behind it is the second column alone

// Characters, not bytes.
int64_t width_of(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

// What the lines after a broken one begin with.
std::string indent_after(std::string_view line, int64_t width) {
  if (line.starts_with("#")) return "#   ";
  const size_t begin = std::min(line.find_first_not_of(' '), line.size());
  const size_t gap = line.find("  ", begin);
  const size_t column = gap == std::string_view::npos ? gap : line.find_first_not_of(' ', gap);
  const bool usable = column != std::string_view::npos && static_cast<int64_t>(column) <= width / 2;
  return std::string(usable ? column : begin > kColumn ? begin : begin + 4, ' ');
}

// Appends the words of the line that fit into `width` to `out`; returns the rest. `least`: bytes at the front
// that are indentation, where no line is broken.
std::string_view take_line(std::string_view line, int64_t width, size_t least, std::string& out) {
  size_t cut = std::string_view::npos;
  for (size_t space = line.find(' ', least); space != std::string_view::npos;
       space = line.find(' ', space + 1)) {
    if (cut != std::string_view::npos && width_of(line.substr(0, space)) > width) break;
    cut = space;
  }
  if (cut == std::string_view::npos || width_of(line) <= width) {
    out += line;
    return {};
  }
  const std::string_view head = line.substr(0, cut);
  out += head.substr(0, head.find_last_not_of(' ') + 1);
  const size_t next = line.find_first_not_of(' ', cut);
  return next == std::string_view::npos ? std::string_view() : line.substr(next);
}

}  // namespace

int64_t terminal_width() {
  if (const char* columns = std::getenv("COLUMNS")) {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(columns, columns + std::strlen(columns), value);
    if (error == std::errc() && *end == '\0' && value > 0) return std::max(value, kNarrowest);
  }
  struct winsize size {};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    return std::max<int64_t>(size.ws_col, kNarrowest);
  return kWithoutTerminal;
}

std::string wrapped(std::string_view text, int64_t width) {
  std::string out;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    const std::string indent = indent_after(line, width);
    size_t least = std::min(line.find_first_not_of(" #"), line.size());
    std::string held(line);
    for (std::string_view rest = held; !rest.empty();) {
      const std::string left(take_line(rest, width, least, out));
      if (left.empty()) break;
      out += "\n";
      held = indent + left;
      rest = held;
      least = indent.size();
    }
    if (end < text.size()) out += "\n";
    begin = end + 1;
  }
  return out;
}

}  // namespace longreach
