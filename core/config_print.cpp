// Printing: the resolved config as TOML, and the rows of help.
#include <cmath>
#include <cstdio>
#include <set>

#include "core/config.h"

namespace longreach {
namespace {

std::string literal(bool value) { return value ? "true" : "false"; }
std::string literal(int64_t value) { return std::to_string(value); }
std::string literal(double value) {
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[40];
  for (int digits = 6; digits <= 17; ++digits) {  // the shortest text that reads back as the same double
    std::snprintf(buffer, sizeof buffer, "%.*g", digits, value);
    if (std::strtod(buffer, nullptr) == value) break;
  }
  std::string written = buffer;
  if (written.find_first_of(".en") == std::string::npos) written += ".0";
  return written;
}
std::string literal(const std::string& value) {
  std::string quoted = "\"";
  for (const char c : value) {
    char buffer[8];
    if (c == '"' || c == '\\') {
      quoted += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      std::snprintf(buffer, sizeof buffer, "\\u%04x", c);
      quoted += buffer;
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}
template <class T>
std::string literal(const std::vector<T>& values) {
  std::vector<std::string> items;
  for (const auto& value : values) items.push_back(literal(value));
  return "[" + join(items) + "]";
}

template <class T>
constexpr const char* kFieldType = "";
template <>
constexpr const char* kFieldType<bool> = "bool";
template <>
constexpr const char* kFieldType<int64_t> = "int";
template <>
constexpr const char* kFieldType<double> = "float";
template <>
constexpr const char* kFieldType<std::string> = "string";
template <>
constexpr const char* kFieldType<std::vector<int64_t>> = "list of int";
template <>
constexpr const char* kFieldType<std::vector<double>> = "list of float";
template <>
constexpr const char* kFieldType<std::vector<std::string>> = "list of string";

// Whether a value is one that a parser would refuse: its key stands for something that is not known yet.
template <class T>
bool is_unset(const T&, const Allowed&) {
  return false;
}
bool is_unset(const int64_t& value, const Allowed& allowed) {
  const auto* range = std::get_if<IntRange>(&allowed);
  return range && (value < range->low || value > range->high);
}

// Walks the fields in order; what is done with each key is the subclass's.
class Walker : public FieldVisitor {
 public:
  void field(std::string_view name, bool& value, const Field& about) override { visit(name, value, about); }
  void field(std::string_view name, int64_t& value, const Field& about) override {
    visit(name, value, about);
  }
  void field(std::string_view name, double& value, const Field& about) override { visit(name, value, about); }
  void field(std::string_view name, std::string& value, const Field& about) override {
    visit(name, value, about);
  }
  void field(std::string_view name, std::vector<int64_t>& value, const Field& about) override {
    visit(name, value, about);
  }
  void field(std::string_view name, std::vector<double>& value, const Field& about) override {
    visit(name, value, about);
  }
  void field(std::string_view name, std::vector<std::string>& value, const Field& about) override {
    visit(name, value, about);
  }
  void reject(std::string_view name, const std::string& why) override {
    throw ConfigError(text(name, ": ", why));
  }

 protected:
  // value: as TOML; empty when the key has none yet.
  virtual void key(std::string_view name, const std::string& value, const char* type, const Field& about) = 0;

 private:
  template <class T>
  void visit(std::string_view name, T& value, const Field& about) {
    key(name, is_unset(value, about.allowed) ? "" : literal(value), kFieldType<T>, about);
  }
};

class Printer : public Walker {
 public:
  // said: remarks that earlier tables of the same list made, which are not made again; null: none.
  Printer(std::string path, bool comments, std::set<std::string>* said = nullptr)
      : path_(std::move(path)), comments_(comments), said_(said) {}
  void section(std::string_view name, std::string_view help, const Fields& inside) override {
    nest(name, help, "[", "]", inside);
  }
  void tables(std::string_view name, std::string_view help, const Fields&, size_t count,
              const std::function<void(size_t, FieldVisitor&)>& nth) override {
    std::set<std::string> said;
    for (size_t i = 0; i < count; ++i)
      nest(
          name, i ? "" : help, "[[", "]]", [&](FieldVisitor& visit) { nth(i, visit); }, &said);
  }
  // Keys first: TOML reads a key after a [section] as that section's.
  std::string result() const { return keys_ + tables_; }

 protected:
  void key(std::string_view name, const std::string& value, const char*, const Field& about) override {
    if (comments_) {
      const std::string allowed = describe(about.allowed);
      const std::string remark = text("# ", about.help, allowed.empty() ? "" : "; " + allowed, "\n");
      if (said_ == nullptr || said_->insert(text(name, remark)).second) keys_ += remark;
    }
    if (!value.empty()) keys_ += text(name, " = ", value, "\n");
    if (value.empty() && comments_) keys_ += text("# ", name, " =\n");
  }

 private:
  void nest(std::string_view name, std::string_view help, const char* open, const char* close,
            const Fields& inside, std::set<std::string>* said = nullptr) {
    const std::string full = path_.empty() ? std::string(name) : path_ + "." + std::string(name);
    Printer printer(full, comments_, said);
    inside(printer);
    tables_ += "\n";
    if (comments_ && !help.empty()) tables_ += text("# ", help, "\n");
    tables_ += open + full + close + "\n" + printer.result();
  }
  std::string path_, keys_, tables_;
  bool comments_;
  std::set<std::string>* said_;
};

class Helper : public Walker {
 public:
  Helper(std::string path, std::vector<FieldHelp>& rows) : path_(std::move(path)), rows_(rows) {}
  void section(std::string_view name, std::string_view, const Fields& inside) override {
    Helper helper(full(name), rows_);
    inside(helper);
  }
  void tables(std::string_view name, std::string_view, const Fields&, size_t count,
              const std::function<void(size_t, FieldVisitor&)>& nth) override {
    for (size_t i = 0; i < count; ++i) {
      Helper helper(full(name) + "." + std::to_string(i), rows_);
      nth(i, helper);
    }
  }

 protected:
  void key(std::string_view name, const std::string& value, const char* type, const Field& about) override {
    rows_.push_back({full(name), type, value, describe(about.allowed), about.help});
  }

 private:
  std::string full(std::string_view name) const {
    return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
  }
  std::string path_;
  std::vector<FieldHelp>& rows_;
};

}  // namespace

std::string describe(const Allowed& allowed) {
  if (const auto* choices = std::get_if<Choices>(&allowed)) return "one of " + join(choices->names);
  if (const auto* range = std::get_if<IntRange>(&allowed)) {
    constexpr auto kUnbounded = std::numeric_limits<int64_t>::max();
    return range->high == kUnbounded ? text("an integer >= ", range->low)
                                     : text("an integer from ", range->low, " to ", range->high);
  }
  if (const auto* range = std::get_if<RealRange>(&allowed)) {
    if (std::isinf(range->high))
      return text("a number ", range->open_low ? "> " : ">= ", literal(range->low));
    const std::string high = literal(range->high),
                      above = literal(std::nextafter(range->high, std::numeric_limits<double>::infinity()));
    const bool open_high = above.size() < high.size();  // the last double before 1 means: below 1
    return text("a number in ", range->open_low ? "(" : "[", literal(range->low), ", ",
                open_high ? above + ")" : high + "]");
  }
  return "";
}

std::string to_toml(const Fields& fields, bool comments) {
  Printer printer("", comments);
  fields(printer);
  return printer.result();
}

std::vector<FieldHelp> help_of(const Fields& fields) {
  std::vector<FieldHelp> rows;
  Helper helper("", rows);
  fields(helper);
  return rows;
}

}  // namespace longreach
