// Strict TOML: a file, overrides from the command line, and a struct's `fields` meet here.
//
// Errors are ConfigErrors of one line: file:line (or --key for an override), the key's path, what was found,
// what is allowed, and the nearest name for an unknown key.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/fields.h"

namespace longreach {

using Fields = std::function<void(FieldVisitor&)>;

// Every config struct has `void fields(FieldVisitor&)`; this binds one.
template <class Config>
Fields fields_of(Config& config) {
  return [&config](FieldVisitor& visit) { config.fields(visit); };
}

class ConfigDocument {
 public:
  struct Contents;  // defined in config.cpp

  // Throws ConfigError when the file cannot be read or is not TOML.
  static ConfigDocument from_file(const std::string& path);
  static ConfigDocument from_text(std::string_view toml, std::string name);
  ~ConfigDocument();
  ConfigDocument(ConfigDocument&&) noexcept;

  // key is "section.key" or "section.list.0.key"; value is written as in TOML, quotes around strings
  // optional.
  void override_key(std::string key, std::string value);

  // Sets every key present, checks types and ranges, refuses keys that `fields` does not name.
  void read(const Fields& fields) const;

 private:
  explicit ConfigDocument(std::unique_ptr<Contents> contents);
  std::unique_ptr<Contents> contents_;
};

// The current values as TOML, readable back by ConfigDocument. With `comments`, each key is preceded by its
// help.
std::string to_toml(const Fields& fields, bool comments = false);

// A row of help for one key.
struct FieldHelp {
  std::string key, type, default_value, allowed, help;
};
std::vector<FieldHelp> help_of(const Fields& fields);

// Splits `--section.key value` and `--section.key=value` into pairs; throws ConfigError for anything else.
std::vector<std::pair<std::string, std::string>> parse_overrides(const std::vector<std::string>& arguments);

}  // namespace longreach
