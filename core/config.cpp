// The parsing visitor over a toml++ table.
#include "core/config.h"

#include <toml++/toml.h>

#include <cerrno>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <system_error>

#include "core/config_place.h"
#include "core/toml_characters.h"
#include "core/toml_hint.h"

#include "core/utf8.h"

namespace longreach {

struct ConfigDocument::Contents {
  std::string name;
  toml::table table;
  std::map<std::string, std::string> overrides;
};

namespace {

std::string type_name(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a number";
    case toml::node_type::boolean:
      return "a boolean";
    default:
      return "a date or time";
  }
}

template <class T>
constexpr std::string_view kTypeName = "";
template <>
constexpr std::string_view kTypeName<bool> = "true or false";
template <>
constexpr std::string_view kTypeName<int64_t> = "an integer";
template <>
constexpr std::string_view kTypeName<double> = "a number";
template <>
constexpr std::string_view kTypeName<std::string> = "a string";

// The value of a TOML node as T, or nothing when the type is another. An integer is also a number.
template <class T>
std::optional<T> exactly(const toml::node& node) {
  if constexpr (std::is_same_v<T, double>) {
    if (node.is_integer()) return static_cast<double>(node.as_integer()->get());
  }
  return node.value_exact<T>();
}

std::string refusal(int64_t value, const Allowed& allowed) {
  const auto* range = std::get_if<IntRange>(&allowed);
  return range && (value < range->low || value > range->high) ? std::to_string(value) : "";
}
std::string refusal(double value, const Allowed& allowed) {
  if (!std::isfinite(value)) return text(value);
  const auto* range = std::get_if<RealRange>(&allowed);
  const bool bad =
      range && (value < range->low || value > range->high || (range->open_low && value == range->low));
  return bad ? text(value) : "";
}
std::string refusal(const std::string& value, const Allowed& allowed) {
  if (!is_utf8(value)) return "`" + value + "`";
  const auto* choices = std::get_if<Choices>(&allowed);
  if (!choices) return "";
  for (const auto& name : choices->names)
    if (name == value) return "";
  return "`" + value + "`" + did_you_mean(value, choices->names);
}
std::string refusal(bool, const Allowed&) { return ""; }

class Reader : public FieldVisitor, public KeyPlaces {
 public:
  Reader(const ConfigDocument::Contents& document, const toml::table* table, std::string path,
         std::set<std::string>& used)
      : document_(document), table_(table), path_(std::move(path)), used_(used) {}

  void field(std::string_view name, bool& value, const Field& about) override { scalar(name, value, about); }
  void field(std::string_view name, int64_t& value, const Field& about) override {
    scalar(name, value, about);
  }
  void field(std::string_view name, double& value, const Field& about) override {
    scalar(name, value, about);
  }
  void field(std::string_view name, std::string& value, const Field& about) override {
    scalar(name, value, about);
  }
  void field(std::string_view name, std::vector<int64_t>& value, const Field& about) override {
    list(name, value, about);
  }
  void field(std::string_view name, std::vector<double>& value, const Field& about) override {
    list(name, value, about);
  }
  void field(std::string_view name, std::vector<std::string>& value, const Field& about) override {
    list(name, value, about);
  }

  void section(std::string_view name, std::string_view, const Fields& inside) override {
    known_.emplace_back(name);
    const toml::node* node = find(name);
    if (node && !node->is_table()) fail(name, node, "expected a table, found " + type_name(*node));
    Reader reader(document_, node ? node->as_table() : nullptr, key(name), used_);
    inside(reader);
    reader.finish();
  }

  void tables(std::string_view name, std::string_view, const Fields& append, size_t,
              const std::function<void(size_t, FieldVisitor&)>&) override {
    known_.emplace_back(name);
    const toml::node* node = find(name);
    if (!node) return;
    const toml::array* array = node->as_array();
    if (!array)
      fail(name, node, text("expected tables written [[", key(name), "]], found ", type_name(*node)));
    for (size_t i = 0; i < array->size(); ++i) {
      const toml::node& element = *array->get(i);
      if (!element.is_table()) fail(name, &element, "expected a table, found " + type_name(element));
      Reader reader(document_, element.as_table(), key(name) + "." + std::to_string(i), used_);
      append(reader);
      reader.finish();
    }
  }

  void reject(std::string_view name, const std::string& why) override { fail(name, find(name), why); }

  std::string place_of(std::string_view name) const override { return place(key(name), find(name)); }

  // Refuses what no field named.
  void finish() const {
    if (!table_) return;
    for (const auto& [name, node] : *table_) {
      const std::string written(name.str());
      bool known = false;
      for (const auto& candidate : known_) known |= candidate == written;
      if (!known)
        fail(written, &node,
             text("unknown key", did_you_mean(written, known_), " (keys here: ", join(known_), ")"));
    }
  }

  const std::vector<std::string>& known() const { return known_; }

 private:
  std::string key(std::string_view name) const {
    return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
  }

  const toml::node* find(std::string_view name) const { return table_ ? table_->get(name) : nullptr; }

  // The command line's key, or file and line; `node` when it has a line, else the table it is in.
  std::string place(const std::string& full, const toml::node* node) const {
    if (document_.overrides.count(full)) return "--" + full;
    const auto* place = node ? node : static_cast<const toml::node*>(table_);
    return place && place->source().begin.line ? text(document_.name, ":", place->source().begin.line)
                                               : document_.name;
  }

  [[noreturn]] void fail(std::string_view name, const toml::node* node, const std::string& why) const {
    const std::string full = key(name), where = place(full, node);
    throw ConfigError(one_line(text(where, where == "--" + full ? "" : ": " + full, ": ", why)));
  }

  [[noreturn]] void fail_missing(std::string_view name, const Field& about) const {
    const std::string allowed = describe(about.allowed);
    fail(name, nullptr, text("is required: ", about.help, allowed.empty() ? "" : "; expected " + allowed));
  }

  // The override of this key as a TOML node; a word that is not TOML is a string.
  std::optional<toml::table> overridden(std::string_view name, bool as_text) const {
    const auto found = document_.overrides.find(key(name));
    if (found == document_.overrides.end()) return std::nullopt;
    used_.insert(found->first);
    toml::table holder;
    const std::string& raw = found->second;
    const bool quoted = raw.size() >= 2 && (raw.front() == '"' || raw.front() == '\'');
    if (!as_text || quoted) {
      try {
        return toml::parse("value = " + raw);
      } catch (const toml::parse_error&) {  // falls through: an unquoted word
      }
    }
    holder.insert("value", raw);
    return holder;
  }

  template <class T>
  void scalar(std::string_view name, T& value, const Field& about) {
    known_.emplace_back(name);
    const auto override_table = overridden(name, std::is_same_v<T, std::string>);
    const toml::node* node = override_table ? override_table->get("value") : find(name);
    if (!node) {
      if (about.required) fail_missing(name, about);
      return;
    }
    value = element<T>(name, *node, about);
  }

  template <class T>
  void list(std::string_view name, std::vector<T>& value, const Field& about) {
    known_.emplace_back(name);
    const auto override_table = overridden(name, false);
    const toml::node* node = override_table ? override_table->get("value") : find(name);
    if (!node) {
      if (about.required) fail_missing(name, about);
      return;
    }
    value.clear();
    if (const toml::array* array = node->as_array()) {
      for (const auto& item : *array) value.push_back(element<T>(name, item, about));
    } else {
      value.push_back(element<T>(name, *node, about));  // a single value is a list of one
    }
  }

  template <class T>
  T element(std::string_view name, const toml::node& node, const Field& about) const {
    const std::string allowed = describe(about.allowed);
    const auto value = exactly<T>(node);
    if (!value)
      fail(name, &node,
           text("expected ", allowed.empty() ? std::string(kTypeName<T>) : allowed, ", found ",
                type_name(node), std::is_same_v<T, std::string> ? "; texts stand in quotes" : ""));
    const std::string refused = refusal(*value, about.allowed);
    if (!refused.empty())
      fail(name, &node, text("expected ", allowed.empty() ? "UTF-8" : allowed, ", found ", refused));
    return *value;
  }

  const ConfigDocument::Contents& document_;
  const toml::table* table_;
  std::string path_;
  std::set<std::string>& used_;
  std::vector<std::string> known_;
};

}  // namespace

ConfigDocument::ConfigDocument(std::unique_ptr<Contents> contents) : contents_(std::move(contents)) {}
ConfigDocument::ConfigDocument(ConfigDocument&&) noexcept = default;
ConfigDocument::~ConfigDocument() = default;

ConfigDocument ConfigDocument::from_file(const std::string& path) {
  namespace fs = std::filesystem;
  const std::string name = one_line(path, 500);
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  check<ConfigError>(status.type() != fs::file_type::not_found, name,
                     ": no such file; expected a TOML config");
  check<ConfigError>(!fs::is_directory(status), name, ": is a folder; expected a TOML config",
                     fs::exists(fs::path(path) / "config.toml", error) ? " such as its config.toml" : "");
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  check<ConfigError>(file.is_open(), name, ": cannot be read: ", std::generic_category().message(errno));
  std::stringstream contents;
  contents << file.rdbuf();
  check<ConfigError>(!file.bad(), name, ": cannot be read to its end");
  return from_text(contents.str(), path);
}

ConfigDocument ConfigDocument::from_text(std::string_view toml_text, std::string name) {
  if (const auto stray = line_of_stray_character(toml_text))
    throw ConfigError(
        one_line(text(name, ":", *stray, ": not TOML: a character beyond ASCII outside of quotes",
                      toml_hint(toml_text, *stray))));
  auto contents = std::make_unique<Contents>();
  try {
    contents->table = toml::parse(toml_text, name);
  } catch (const toml::parse_error& error) {
    const auto line = static_cast<size_t>(error.source().begin.line);
    throw ConfigError(
        one_line(text(name, ":", line, ": not TOML: ", error.description(), toml_hint(toml_text, line))));
  }
  contents->name = std::move(name);
  return ConfigDocument(std::move(contents));
}

void ConfigDocument::override_key(std::string key, std::string value) {
  contents_->overrides[std::move(key)] = std::move(value);
}

void ConfigDocument::read(const Fields& fields) const {
  std::set<std::string> used;
  Reader reader(*contents_, &contents_->table, "", used);
  fields(reader);
  reader.finish();
  std::vector<std::string> names;
  for (const auto& row : help_of(fields)) names.push_back(row.key);
  for (const auto& [key, value] : contents_->overrides)
    if (!used.count(key))
      throw ConfigError(one_line(text("--", key, ": unknown key", did_you_mean(key, names))));
}

std::vector<std::pair<std::string, std::string>> parse_overrides(const std::vector<std::string>& arguments) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    check<ConfigError>(argument.rfind("--", 0) == 0 && argument.find('.') != std::string::npos,
                       one_line(argument), ": expected --section.key value");
    const size_t equals = argument.find('=');
    if (equals != std::string::npos) {
      pairs.emplace_back(argument.substr(2, equals - 2), argument.substr(equals + 1));
    } else {
      check<ConfigError>(i + 1 < arguments.size(), one_line(argument), ": a value is missing");
      pairs.emplace_back(argument.substr(2), arguments[++i]);
    }
  }
  return pairs;
}

}  // namespace longreach
