// Values written out: as Python prints them, and as JSON.
#pragma once
#include <optional>
#include <string>

#include "data/chat_template/value.h"

namespace longreach::data::jinja {

// str(value): what {{ value }} prints. Throws Fault for values that have no text of their own.
std::string written(Work& work, const Value& value);

struct JsonStyle {
  std::optional<std::string> indent;  // of a level
  std::string between_items = ", ", behind_key = ": ";
  bool ascii = false, sorted = false;
};
// json.dumps(value).
std::string written_json(Work& work, const Value& value, const JsonStyle& style);

}  // namespace longreach::data::jinja
