// value.method(...), of strings, mappings and lists.
#include <algorithm>
#include <array>
#include <span>

#include "data/chat_template/builtins.h"
#include "data/chat_template/characters.h"
#include "data/chat_template/lines.h"

namespace longreach::data::jinja {
namespace {

// Everything that Python's objects have by a name, so that what is not known here is never taken for a key.
constexpr std::array<std::string_view, 47> kOfText{
    "capitalize", "casefold",     "center",       "count",   "encode",     "endswith",    "expandtabs",
    "find",       "format",       "format_map",   "index",   "isalnum",    "isalpha",     "isascii",
    "isdecimal",  "isdigit",      "isidentifier", "islower", "isnumeric",  "isprintable", "isspace",
    "istitle",    "isupper",      "join",         "ljust",   "lower",      "lstrip",      "maketrans",
    "partition",  "removeprefix", "removesuffix", "replace", "rfind",      "rindex",      "rjust",
    "rpartition", "rsplit",       "rstrip",       "split",   "splitlines", "startswith",  "strip",
    "swapcase",   "title",        "translate",    "upper",   "zfill"};
constexpr std::array<std::string_view, 11> kOfMapping{
    "clear", "copy", "fromkeys", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"};
constexpr std::array<std::string_view, 11> kOfList{"append", "clear", "copy",   "count",   "extend", "index",
                                                   "insert", "pop",   "remove", "reverse", "sort"};
constexpr std::array<std::string_view, 5> kOfOthers{"count", "index", "start", "step", "stop"};
constexpr std::array<std::string_view, 14> kOfNumbers{
    "as_integer_ratio", "bit_count", "bit_length", "conjugate",  "denominator", "from_bytes", "fromhex",
    "from_number",      "hex",       "imag",       "is_integer", "numerator",   "real",       "to_bytes"};

using Method = Value (*)(Session&, const Value& self, const Arguments&);
struct Known {
  std::string_view name;
  Method call;
};

Value text_value(Session& session, std::string_view text) {
  return make_text(session.work, std::string(text));
}

std::optional<std::string> optional_text(const Value* value, const std::string& what) {
  if (!value || value->none()) return std::nullopt;
  return text_of(*value, "the argument of " + what);
}
const std::string& wanted_text(const Value* value, const std::string& what) {
  check<Fault>(value, what, " expects a string");
  return text_of(*value, "the argument of " + what);
}

template <Ends kEnds>
Value strip_text(Session& session, const Value& self, const Arguments& arguments) {
  const auto bound = arguments.bind({"chars"});
  return text_value(session, strip(*self.text(), kEnds, optional_text(bound[0], arguments.what)));
}

template <std::string (*kOf)(std::string_view)>
Value change_case(Session& session, const Value& self, const Arguments& arguments) {
  arguments.bind({});
  return make_text(session.work, kOf(*self.text()));
}

// Whether the text begins (or ends) with a string, or with one of a tuple of them.
template <bool kStarts>
Value has_end(Session& session, const Value& self, const Arguments& arguments) {
  const auto bound = arguments.bind({"prefix"});
  check<Fault>(bound[0], arguments.what, " expects a string");
  const auto is_end = [&](const Value& end) {
    const std::string& text = text_of(end, "the argument of " + arguments.what);
    return kStarts ? self.text()->starts_with(text) : self.text()->ends_with(text);
  };
  if (!bound[0]->sequence()) return {is_end(*bound[0])};
  check<Fault>(bound[0]->sequence()->form == Sequence::Form::tuple, arguments.what, " of ",
               kind_of(*bound[0]), ", expected a string or a tuple of them");
  const auto items = iterate(session.work, *bound[0]);
  return {std::any_of(items.begin(), items.end(), is_end)};
}

int64_t limit_of(const Value* value) { return value ? integer_of(*value, "the limit of a split") : -1; }

Value split(Session& session, const Value& self, const Arguments& arguments) {
  const auto bound = arguments.bind({"sep", "maxsplit"});
  return make_sequence(session.work, split_text(session.work, *self.text(),
                                                optional_text(bound[0], arguments.what), limit_of(bound[1])));
}

Value split_right(Session& session, const Value& self, const Arguments& arguments) {
  const auto bound = arguments.bind({"sep", "maxsplit"});
  const std::string& separator = wanted_text(bound[0], arguments.what);
  return make_sequence(session.work,
                       split_text_from_right(session.work, *self.text(), separator, limit_of(bound[1])));
}

Value split_by_lines(Session& session, const Value& self, const Arguments& arguments) {
  arguments.bind({});
  std::vector<Value> lines;
  for (const std::string& line : split_lines(*self.text())) lines.push_back(text_value(session, line));
  return make_sequence(session.work, std::move(lines));
}

Value replace(Session& session, const Value& self, const Arguments& arguments) {
  const auto bound = arguments.bind({"old", "new", "count"});
  const std::string &what = wanted_text(bound[0], arguments.what),
                    &by = wanted_text(bound[1], arguments.what);
  return replaced(session.work, *self.text(), what, by, bound[2] ? integer_of(*bound[2], "a count") : -1);
}

template <bool kStarts>
Value remove_end(Session& session, const Value& self, const Arguments& arguments) {
  const auto bound = arguments.bind({"end"});
  const std::string& end = wanted_text(bound[0], arguments.what);
  std::string_view text = *self.text();
  if (kStarts && text.starts_with(end)) text.remove_prefix(end.size());
  if (!kStarts && text.ends_with(end)) text.remove_suffix(end.size());
  return text_value(session, text);
}

template <bool kLast>
Value find(Session& session, const Value& self, const Arguments& arguments) {
  const auto bound = arguments.bind({"sub"});
  const std::string& part = wanted_text(bound[0], arguments.what);
  const std::string& text = *self.text();
  session.work.spend(text.size() / 8 + 1);
  const size_t found = kLast ? text.rfind(part) : text.find(part);
  return {found == std::string::npos ? int64_t{-1} : count_chars(std::string_view(text).substr(0, found))};
}

Value count_in_text(Session& session, const Value& self, const Arguments& arguments) {
  const auto bound = arguments.bind({"sub"});
  const std::string& part = wanted_text(bound[0], arguments.what);
  check<Fault>(!part.empty(), "counting an empty string is not supported");
  return {static_cast<int64_t>(split_text(session.work, *self.text(), part, -1).size()) - 1};
}

Value join_texts(Session& session, const Value& self, const Arguments& arguments) {
  const auto bound = arguments.bind({"iterable"});
  check<Fault>(bound[0], arguments.what, " expects a list");
  std::string out;
  bool first = true;
  for (const Value& item : iterate(session.work, *bound[0])) {
    if (!first) out += *self.text();
    first = false;
    out += text_of(item, "an item that is joined");
    session.work.spend(self.text()->size() + item.text()->size());
  }
  return make_text(session.work, out);
}

Value get(Session& session, const Value& self, const Arguments& arguments) {
  const auto bound = arguments.bind({"key", "default"});
  check<Fault>(bound[0], arguments.what, " expects a key");
  session.work.spend(8 * self.mapping()->items.size());
  const Value* found = bound[0]->text() ? self.mapping()->find(*bound[0]->text()) : nullptr;
  return found ? *found : bound[1] ? *bound[1] : Value{None{}};
}

template <bool kKeys, bool kValues>
Value view(Session& session, const Value& self, const Arguments& arguments) {
  arguments.bind({});
  std::vector<Value> items;
  for (const auto& [key, value] : self.mapping()->items) {
    if (!kKeys) {
      items.push_back(value);
      continue;
    }
    const Value name = make_text(session.work, key);
    items.push_back(kValues ? make_sequence(session.work, {name, value}, Sequence::Form::tuple) : name);
  }
  return make_sequence(session.work, std::move(items), Sequence::Form::view);
}

Value count_in_list(Session& session, const Value& self, const Arguments& arguments) {
  const auto bound = arguments.bind({"value"});
  check<Fault>(bound[0], arguments.what, " expects a value");
  int64_t count = 0;
  for (const Value& item : self.sequence()->items) count += equal(session.work, item, *bound[0]) ? 1 : 0;
  return {count};
}

Value index_in_list(Session& session, const Value& self, const Arguments& arguments) {
  const auto bound = arguments.bind({"value"});
  check<Fault>(bound[0], arguments.what, " expects a value");
  const auto& items = self.sequence()->items;
  for (size_t i = 0; i < items.size(); ++i)
    if (equal(session.work, items[i], *bound[0])) return {static_cast<int64_t>(i)};
  throw Fault(text(arguments.what, ": the value is not in the list"));
}

constexpr Known kTextMethods[] = {{"capitalize", change_case<capitalize>},
                                  {"count", count_in_text},
                                  {"endswith", has_end<false>},
                                  {"find", find<false>},
                                  {"join", join_texts},
                                  {"lower", change_case<lower>},
                                  {"lstrip", strip_text<Ends::left>},
                                  {"removeprefix", remove_end<true>},
                                  {"removesuffix", remove_end<false>},
                                  {"replace", replace},
                                  {"rfind", find<true>},
                                  {"rsplit", split_right},
                                  {"rstrip", strip_text<Ends::right>},
                                  {"split", split},
                                  {"splitlines", split_by_lines},
                                  {"startswith", has_end<true>},
                                  {"strip", strip_text<Ends::both>},
                                  {"upper", change_case<upper>}};
constexpr Known kMappingMethods[] = {
    {"get", get}, {"items", view<true, true>}, {"keys", view<true, false>}, {"values", view<false, true>}};
constexpr Known kListMethods[] = {{"count", count_in_list}, {"index", index_in_list}};

std::span<const Known> known_methods(const Value& self) {
  if (self.text()) return kTextMethods;
  if (self.mapping()) return kMappingMethods;
  return kListMethods;
}

bool among(std::span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

bool is_method(const Value& self, std::string_view name) {
  if (name.starts_with("__")) return true;
  if (self.text()) return among(kOfText, name);
  if (self.mapping()) return among(kOfMapping, name);
  if (self.get<bool>() || self.get<int64_t>() || self.get<double>()) return among(kOfNumbers, name);
  if (!self.sequence()) return false;
  return among(
      self.sequence()->form == Sequence::Form::list ? std::span<const std::string_view>(kOfList) : kOfOthers,
      name);
}

Value call_method(Session& session, const Value& self, std::string_view name, const Arguments& arguments) {
  for (const Known& known : known_methods(self))
    if (known.name == name && (self.text() || self.mapping() || self.sequence()))
      return known.call(session, self, arguments);
  std::vector<std::string> names;
  for (const Known& known : known_methods(self)) names.emplace_back(known.name);
  throw Fault(text("the method `", one_line(name, 60), "` of ", kind_of(self),
                   " is not known; the known ones are ", join(names)));
}

}  // namespace longreach::data::jinja
