#include "core/toml_hint.h"

#include <algorithm>
#include <cctype>
#include <vector>

#include "core/error.h"

namespace longreach {
namespace {

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

std::vector<std::string_view> lines_of(std::string_view toml) {
  std::vector<std::string_view> lines;
  for (size_t begin = 0; begin <= toml.size();) {
    const size_t end = std::min(toml.find('\n', begin), toml.size());
    lines.push_back(trim(toml.substr(begin, end - begin)));
    begin = end + 1;
  }
  return lines;
}

// "model.attention" of "[model.attention]" and "[[ model.attention ]]  # remark"; empty for any other line.
std::string table_name(std::string_view line) {
  if (!line.starts_with("[")) return {};
  while (line.starts_with("[")) line.remove_prefix(1);
  std::string name;
  for (const char c : line.substr(0, line.find(']')))
    if (c != ' ' && c != '\t') name += c;
  return name;
}

// An earlier table of the same name, or nothing: TOML takes a second one for a mistake unless both are lists.
std::string repeated_table(const std::vector<std::string_view>& lines, size_t line) {
  const std::string name = table_name(lines[line - 1]);
  if (name.empty()) return {};
  for (size_t earlier = 1; earlier < line; ++earlier)
    if (table_name(lines[earlier - 1]) == name)
      return text("; [", name, "] is in line ", earlier, " too: a list of tables is written [[", name,
                  "]] each time, any other table stands once");
  return {};
}

// Whether a text value stands where TOML wants quotes around it.
bool wants_quotes(std::string_view value) {
  if (value.empty()) return false;
  const auto first = static_cast<unsigned char>(value.front());
  return std::isalpha(first) != 0 || first >= 0x80 || value.front() == '/' || value.front() == '.' ||
         value.front() == '~' || value.front() == '_' || value.front() == '$' ||
         (std::isdigit(first) != 0 && value.find_first_of("/-") != std::string_view::npos);
}

std::string without_remark(std::string_view value) {
  return std::string(trim(value.substr(0, value.find('#'))));
}

std::string bare_value(std::string_view line) {
  const size_t equals = line.find('=');
  if (equals == std::string_view::npos || line.starts_with("[")) {
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || colon == 0) return {};
    return text("; TOML writes key = value, not key: value");
  }
  const std::string key(trim(line.substr(0, equals))), value = without_remark(line.substr(equals + 1));
  if (value.empty()) return text("; ", key, " has no value");
  for (const char* truth : {"true", "false"})
    if (value.size() == std::string_view(truth).size() &&
        std::equal(value.begin(), value.end(), truth,
                   [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == b; }))
      return text("; did you mean ", key, " = ", truth, "?");
  if (value == "None" || value == "null" || value == "nil" || value == "~")
    return text("; TOML has no ", value, ": leave ", key, " out");
  if (value.front() == '[') return "; texts in a list stand in quotes: [\"a\", \"b\"]";
  return wants_quotes(value) ? text("; texts stand in quotes: did you mean ", key, " = \"", value, "\"?")
                             : "";
}

}  // namespace

std::string toml_hint(std::string_view toml, size_t line) {
  const std::vector<std::string_view> lines = lines_of(toml);
  if (line == 0 || line > lines.size()) return {};
  const std::string repeated = repeated_table(lines, line);
  return repeated.empty() ? bare_value(lines[line - 1]) : repeated;
}

}  // namespace longreach
