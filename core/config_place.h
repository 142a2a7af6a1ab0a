// Where a parser has met the keys it hands out, for rules that span two tables and want to name both.
#pragma once
#include <string>
#include <string_view>

namespace longreach {

// A parsing FieldVisitor is one of these too; printers and helpers are not.
class KeyPlaces {
 public:
  virtual ~KeyPlaces() = default;
  // "run.toml:12" of a key of the table that is being visited, or of the table when the key is absent;
  // "--section.key" when the command line gives it.
  virtual std::string place_of(std::string_view name) const = 0;
};

}  // namespace longreach
