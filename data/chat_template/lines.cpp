// Parts of strings.
#include "data/chat_template/lines.h"

#include <algorithm>

#include "data/chat_template/characters.h"
#include "data/tokenizers/unicode_classes.h"

namespace longreach::data::jinja {
namespace {

bool ends_line(char32_t code) {
  return (code >= '\n' && code <= '\r') || (code >= 0x1C && code <= 0x1E) || code == 0x85 || code == 0x2028 ||
         code == 0x2029;
}

std::vector<Value> split_blanks(Work& work, std::string_view text, int64_t limit) {
  std::vector<Value> parts;
  for (text = strip(text, Ends::left); !text.empty();) {
    size_t end = 0;
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      end = text.size();
    } else {
      while (end < text.size() && !is_blank(decode_char(text, end).code)) end += char_size(text, end);
    }
    parts.push_back(make_text(work, std::string(text.substr(0, end))));
    text = strip(text.substr(end), Ends::left);
  }
  return parts;
}

}  // namespace

std::vector<std::string> split_lines(std::string_view text) {
  std::vector<std::string> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const DecodedChar c = decode_char(text, at);
    size_t next = at + c.length;
    if (ends_line(c.code)) {
      if (c.code == '\r' && next < text.size() && text[next] == '\n') ++next;
      lines.emplace_back(text.substr(begin, at - begin));
      begin = next;
    }
    at = next;
  }
  if (begin < text.size()) lines.emplace_back(text.substr(begin));
  return lines;
}

std::vector<Value> split_text(Work& work, std::string_view text, const std::optional<std::string>& separator,
                              int64_t limit) {
  if (!separator) return split_blanks(work, text, limit);
  check<Fault>(!separator->empty(), "the separator of split is empty");
  std::vector<Value> parts;
  for (;;) {
    const bool more = limit < 0 || static_cast<int64_t>(parts.size()) < limit;
    const size_t end = more ? text.find(*separator) : std::string_view::npos;
    parts.push_back(make_text(work, std::string(text.substr(0, end))));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + separator->size());
  }
}

std::vector<Value> split_text_from_right(Work& work, std::string_view text, const std::string& separator,
                                         int64_t limit) {
  check<Fault>(!separator.empty(), "the separator of rsplit is empty");
  std::vector<Value> parts;
  for (;;) {
    const bool more = limit < 0 || static_cast<int64_t>(parts.size()) < limit;
    const size_t found = more ? text.rfind(separator) : std::string_view::npos;
    const size_t begin = found == std::string_view::npos ? 0 : found + separator.size();
    parts.push_back(make_text(work, std::string(text.substr(begin))));
    if (found == std::string_view::npos) break;
    text = text.substr(0, found);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Value replaced(Work& work, std::string_view text, const std::string& what, const std::string& by,
               int64_t limit) {
  check<Fault>(!what.empty(), "replacing an empty string is not supported");
  std::string out;
  for (; limit != 0; limit -= limit > 0 ? 1 : 0) {
    const size_t found = text.find(what);
    if (found == std::string_view::npos) break;
    work.spend(found + by.size());
    out.append(text.substr(0, found)).append(by);
    text.remove_prefix(found + what.size());
  }
  return make_text(work, out.append(text));
}

}  // namespace longreach::data::jinja
