// `value | filter`.
#include <algorithm>
#include <array>
#include <charconv>

#include "data/chat_template/builtins.h"
#include "data/chat_template/characters.h"
#include "data/chat_template/lines.h"
#include "data/chat_template/written.h"

namespace longreach::data::jinja {
namespace {

using Form = Sequence::Form;

std::string str(Session& session, const Value* value, const char* fallback = "") {
  return value ? written(session.work, *value) : fallback;
}

// A filter of the written value, without arguments.
template <std::string (*kOf)(std::string_view)>
Value of_text(Session& session, const Value& value, const Arguments& arguments) {
  arguments.bind({});
  return make_text(session.work, kOf(written(session.work, value)));
}

std::string same(std::string_view text) { return std::string(text); }

Value filter_trim(Session& session, const Value& value, const Arguments& arguments) {
  const auto bound = arguments.bind({"chars"});
  std::optional<std::string> chars;
  if (bound[0] && !bound[0]->none()) chars = text_of(*bound[0], "the argument of trim");
  const std::string text = written(session.work, value);
  return make_text(session.work, std::string(strip(text, Ends::both, chars)));
}

Value filter_replace(Session& session, const Value& value, const Arguments& arguments) {
  const auto bound = arguments.bind({"old", "new", "count"});
  check<Fault>(bound[0] && bound[1], arguments.what, " expects what to replace, and by what");
  const int64_t count = bound[2] && !bound[2]->none() ? integer_of(*bound[2], "the count of replace") : -1;
  return replaced(session.work, written(session.work, value), str(session, bound[0]), str(session, bound[1]),
                  count);
}

Value filter_indent(Session& session, const Value& value, const Arguments& arguments) {
  const auto bound = arguments.bind({"width", "first", "blank"});
  std::string indent(4, ' ');
  if (bound[0] && bound[0]->text()) {
    indent = *bound[0]->text();
  } else if (bound[0]) {
    const int64_t width = integer_of(*bound[0], "the width of indent");
    check<Fault>(width >= 0 && width <= 1000, "the width of indent is ", width, ", allowed are 0 to 1000");
    indent.assign(static_cast<size_t>(width), ' ');
  }
  const bool first = bound[1] && is_true(*bound[1]), blank = bound[2] && is_true(*bound[2]);
  const auto lines = split_lines(text_of(value, "what is indented") + "\n");
  std::string out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += "\n";
    if (i == 0 ? first : blank || !lines[i].empty()) out += indent;
    out += lines[i];
    session.work.spend(indent.size() + lines[i].size());
  }
  return make_text(session.work, out);
}

Value filter_default(Session& session, const Value& value, const Arguments& arguments) {
  const auto bound = arguments.bind({"default_value", "boolean"});
  const bool any_false = bound[1] && is_true(*bound[1]);
  if (!value.undefined() && (!any_false || is_true(value))) return value;
  return bound[0] ? *bound[0] : make_text(session.work, "");
}

Value filter_length(Session& session, const Value& value, const Arguments& arguments) {
  arguments.bind({});
  return {length_of(session.work, value)};
}

// value.a.b, each step an item.
Value attribute_of(Session& session, Value value, const Value& path) {
  if (!path.text()) return item_of(session, value, path);
  std::string_view rest = *path.text();
  for (size_t dot = 0; dot != std::string_view::npos;) {
    dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    const bool number = !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
    check<Fault>(!number, "an attribute that is a number is not supported");
    value = item_of(session, value, make_text(session.work, std::string(part)));
    rest.remove_prefix(dot == std::string_view::npos ? rest.size() : dot + 1);
  }
  return value;
}

Value filter_join(Session& session, const Value& value, const Arguments& arguments) {
  const auto bound = arguments.bind({"d", "attribute"});
  const std::string between = str(session, bound[0]);
  std::string out;
  bool first = true;
  for (const Value& item : iterate(session.work, value)) {
    if (!first) out += between;
    first = false;
    session.work.spend(between.size());
    const bool part = bound[1] && !bound[1]->none();
    out += written(session.work, part ? attribute_of(session, item, *bound[1]) : item);
  }
  return make_text(session.work, out);
}

Value filter_list(Session& session, const Value& value, const Arguments& arguments) {
  arguments.bind({});
  return make_sequence(session.work, iterate(session.work, value));
}

Value filter_first(Session& session, const Value& value, const Arguments& arguments) {
  arguments.bind({});
  const auto items = iterate(session.work, value);
  return items.empty() ? Value{Undefined{"the first item"}} : items.front();
}

Value filter_last(Session& session, const Value& value, const Arguments& arguments) {
  arguments.bind({});
  const bool generator = value.sequence() && value.sequence()->form == Form::generator;
  check<Fault>(!generator, "last of ", kind_of(value), " is not possible");
  const auto items = iterate(session.work, value);
  return items.empty() ? Value{Undefined{"the last item"}} : items.back();
}

Value filter_reverse(Session& session, const Value& value, const Arguments& arguments) {
  arguments.bind({});
  auto items = iterate(session.work, value);
  std::reverse(items.begin(), items.end());
  if (!value.text()) return make_sequence(session.work, std::move(items), Form::generator);
  std::string out;
  for (const Value& item : items) out += *item.text();
  return make_text(session.work, out);
}

Value filter_items(Session& session, const Value& value, const Arguments& arguments) {
  arguments.bind({});
  if (value.undefined()) return make_sequence(session.work, {}, Form::generator);
  check<Fault>(value.mapping(), "items of ", kind_of(value), ", expected a mapping");
  std::vector<Value> pairs;
  for (const auto& [key, item] : value.mapping()->items)
    pairs.push_back(make_sequence(session.work, {make_text(session.work, key), item}, Form::tuple));
  return make_sequence(session.work, std::move(pairs), Form::generator);
}

Value filter_int(Session&, const Value& value, const Arguments& arguments) {
  const auto bound = arguments.bind({"default"});
  check<Fault>(!value.undefined(), "int of ", kind_of(value));
  const int64_t fallback = bound[0] ? integer_of(*bound[0], "the default of int") : 0;
  if (const auto* real = value.get<double>()) {
    check<Fault>(*real > -9e18 && *real < 9e18, "int of ", *real, " is too large");
    return {static_cast<int64_t>(*real)};
  }
  if (!value.text()) return {value.get<bool>() || value.get<int64_t>() ? integer_of(value, "") : fallback};
  std::string_view digits = strip(*value.text(), Ends::both);
  if (digits.starts_with('+')) digits.remove_prefix(1);
  int64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  const bool whole = error == std::errc() && end == digits.data() + digits.size();
  check<Fault>(whole || digits.find_first_of("0123456789") == std::string_view::npos, "int of the string `",
               one_line(digits, 60), "` is not supported");
  return {whole ? number : fallback};
}

Value filter_abs(Session&, const Value& value, const Arguments& arguments) {
  arguments.bind({});
  if (const auto* real = value.get<double>()) return {*real < 0 ? -*real : *real};
  const int64_t number = integer_of(value, "what abs is of");
  check<Fault>(number != INT64_MIN, "a number is too large");
  return {number < 0 ? -number : number};
}

Value filter_tojson(Session& session, const Value& value, const Arguments& arguments) {
  const auto bound = arguments.bind({"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii = bound[0] && is_true(*bound[0]);
  style.sorted = bound[3] && is_true(*bound[3]);
  if (bound[1] && bound[1]->text()) {
    style.indent = *bound[1]->text();
  } else if (bound[1] && !bound[1]->none()) {
    const int64_t width = integer_of(*bound[1], "the indent of tojson");
    check<Fault>(width <= 100, "the indent of tojson is ", width, ", allowed are 0 to 100");
    style.indent = std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
  }
  if (style.indent) style.between_items = ",";
  if (bound[2] && !bound[2]->none()) {
    const auto pair = iterate(session.work, *bound[2]);
    check<Fault>(pair.size() == 2, "the separators of tojson are ", pair.size(), ", expected two");
    style.between_items = text_of(pair[0], "a separator of tojson");
    style.behind_key = text_of(pair[1], "a separator of tojson");
  }
  return make_text(session.work, written_json(session.work, value, style));
}

// The arguments of map, select and the like behind the first, for the filter or test that those name.
Arguments rest_of(const Arguments& arguments, size_t taken, const std::string& what) {
  Arguments rest{what, {}, arguments.named};
  rest.positional.assign(arguments.positional.begin() + static_cast<ptrdiff_t>(taken),
                         arguments.positional.end());
  return rest;
}

Value filter_map(Session& session, const Value& value, const Arguments& arguments) {
  std::vector<Value> out;
  if (arguments.positional.empty()) {
    const auto bound = arguments.bind({"attribute", "default"});
    check<Fault>(bound[0], "map expects a filter or an attribute");
    for (const Value& item : iterate(session.work, value)) {
      Value found = attribute_of(session, item, *bound[0]);
      out.push_back(found.undefined() && bound[1] ? *bound[1] : found);
    }
  } else {
    const std::string& name = text_of(arguments.positional[0], "the filter of map");
    const Builtin filter = find_filter(name);
    check<Fault>(filter, "filter `", one_line(name, 60), "` is not known");
    const Arguments rest = rest_of(arguments, 1, "filter `" + name + "`");
    for (const Value& item : iterate(session.work, value)) out.push_back(filter(session, item, rest));
  }
  return make_sequence(session.work, std::move(out), Form::generator);
}

// The items that pass a test (or fail it: not `wanted`), by themselves or by an attribute.
template <bool kWanted, bool kByAttribute>
Value filter_select(Session& session, const Value& value, const Arguments& arguments) {
  const auto& given = arguments.positional;
  check<Fault>(!kByAttribute || !given.empty(), arguments.what, " expects an attribute");
  const size_t at = kByAttribute ? 1 : 0;
  Test test = nullptr;
  Arguments rest;
  if (given.size() > at) {
    const std::string& name = text_of(given[at], "the test of select or reject");
    test = find_test(name);
    check<Fault>(test, "test `", one_line(name, 60), "` is not known");
    rest = rest_of(arguments, at + 1, "test `" + name + "`");
  }
  std::vector<Value> out;
  for (const Value& item : iterate(session.work, value)) {
    const Value subject = kByAttribute ? attribute_of(session, item, given[0]) : item;
    if ((test ? test(session, subject, rest) : is_true(subject)) == kWanted) out.push_back(item);
  }
  return make_sequence(session.work, std::move(out), Form::generator);
}

constexpr std::array<std::pair<std::string_view, Builtin>, 26> kFilters{{
    {"abs", filter_abs},
    {"capitalize", of_text<capitalize>},
    {"count", filter_length},
    {"d", filter_default},
    {"default", filter_default},
    {"first", filter_first},
    {"indent", filter_indent},
    {"int", filter_int},
    {"items", filter_items},
    {"join", filter_join},
    {"last", filter_last},
    {"length", filter_length},
    {"list", filter_list},
    {"lower", of_text<lower>},
    {"map", filter_map},
    {"reject", filter_select<false, false>},
    {"rejectattr", filter_select<false, true>},
    {"replace", filter_replace},
    {"reverse", filter_reverse},
    {"select", filter_select<true, false>},
    {"selectattr", filter_select<true, true>},
    {"string", of_text<same>},
    {"title", of_text<title>},
    {"tojson", filter_tojson},
    {"trim", filter_trim},
    {"upper", of_text<upper>},
}};

}  // namespace

Builtin find_filter(std::string_view name) {
  const auto found =
      std::find_if(kFilters.begin(), kFilters.end(), [&](const auto& one) { return one.first == name; });
  return found == kFilters.end() ? nullptr : found->second;
}

std::string filter_names() {
  std::vector<std::string> names;
  for (const auto& [name, filter] : kFilters) names.emplace_back(name);
  return join(names);
}

}  // namespace longreach::data::jinja
