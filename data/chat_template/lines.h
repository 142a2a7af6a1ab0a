// Cutting strings into parts, and parts put in the place of others, as Python's methods do.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/chat_template/value.h"

namespace longreach::data::jinja {

// str.splitlines().
std::vector<std::string> split_lines(std::string_view text);
// str.split(separator, limit): by white space where there is no separator; limit -1 is none.
std::vector<Value> split_text(Work& work, std::string_view text, const std::optional<std::string>& separator,
                              int64_t limit);
// str.rsplit(separator, limit).
std::vector<Value> split_text_from_right(Work& work, std::string_view text, const std::string& separator,
                                         int64_t limit);
// str.replace(what, by, limit).
Value replaced(Work& work, std::string_view text, const std::string& what, const std::string& by,
               int64_t limit);

}  // namespace longreach::data::jinja
