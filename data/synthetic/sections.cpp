#include "data/synthetic/sections.h"

#include <algorithm>
#include <array>
#include <regex>
#include <sstream>
#include <string_view>

namespace longreach::data {
namespace {

constexpr size_t kShortest = 80, kLongest = 600, kLongestHeading = 80;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    const size_t end = line.find_last_not_of(" \t\r");
    lines.push_back(line.substr(0, end == std::string::npos ? 0 : end + 1));
  }
  return lines;
}

// A line of one punctuation character, as below a heading.
bool is_underline(const std::string& line) {
  constexpr std::string_view kMarks = "=-~^\"'`#*+.:_";
  return line.size() >= 3 && kMarks.find(line[0]) != std::string_view::npos &&
         line.find_first_not_of(line[0]) == std::string::npos;
}

bool is_heading(const std::vector<std::string>& lines, size_t i) {
  return i + 1 < lines.size() && !lines[i].empty() && lines[i].size() <= kLongestHeading &&
         lines[i].front() != ' ' && !is_underline(lines[i]) && is_underline(lines[i + 1]) &&
         lines[i + 1].size() >= lines[i].size();
}

std::string without_markup(const std::string& line) {
  static const std::regex role(":[A-Za-z:+-]+:`"), link("`_+"), target(" <[^<>`]*>(?=`)"),
      mark("\\*\\*?|``?");
  std::string plain = std::regex_replace(line, target, "");
  plain = std::regex_replace(plain, role, "");
  plain = std::regex_replace(plain, link, "");
  return std::regex_replace(plain, mark, "");
}

// Whether a line of a paragraph is prose.
bool is_prose(const std::string& line) {
  constexpr std::string_view kOthers = " \t.-*+|:>#=$/[<";
  return kOthers.find(line.front()) == std::string_view::npos && !is_underline(line) &&
         line.find("::") == std::string::npos && line.find('|') == std::string::npos &&
         !(std::isdigit(static_cast<unsigned char>(line.front())) != 0 && line.find_first_of(".)") < 4);
}

// The paragraph from line i on, on one line; empty when it is something else.
std::string paragraph_at(const std::vector<std::string>& lines, size_t i) {
  while (i < lines.size() && lines[i].empty()) ++i;
  std::string paragraph;
  for (; i < lines.size() && !lines[i].empty(); ++i) {
    if (!is_prose(lines[i]) || is_heading(lines, i)) return {};
    paragraph += (paragraph.empty() ? "" : " ") + lines[i];
    if (paragraph.size() > 2 * kLongest) return {};
  }
  paragraph = without_markup(paragraph);
  const bool fits = paragraph.size() >= kShortest && paragraph.size() <= kLongest;
  return fits && paragraph.back() == '.' ? paragraph : std::string();
}

}  // namespace

std::vector<Section> sections_of(const std::string& document) {
  const std::vector<std::string> lines = lines_of(document);
  std::string title;
  std::vector<Section> sections;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (!is_heading(lines, i)) continue;
    const std::string heading = without_markup(lines[i]);
    if (title.empty()) {
      title = heading;
      continue;
    }
    std::string paragraph = paragraph_at(lines, i + 2);
    if (!paragraph.empty()) sections.push_back({title, heading, std::move(paragraph)});
  }
  return sections;
}

Exchange exchange_of(const Section& section, uint64_t draw) {
  constexpr std::array<std::array<std::string_view, 3>, 4> kWordings{
      {{"In \"", "\", what is said about \"", "\"?"},
       {"I am reading \"", "\". What should I know about \"", "\"?"},
       {"From the documentation \"", "\": please explain \"", "\" in a few sentences."},
       {"What does the document \"", "\" say under \"", "\"?"}}};
  const auto& words = kWordings[draw % kWordings.size()];
  std::string question(words[0]);
  question.append(section.document).append(words[1]).append(section.heading).append(words[2]);
  return {std::move(question), section.paragraph};
}

}  // namespace longreach::data
