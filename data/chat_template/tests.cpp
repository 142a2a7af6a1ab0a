// `value is test`.
#include <algorithm>
#include <array>

#include "data/chat_template/builtins.h"
#include "data/chat_template/characters.h"

namespace longreach::data::jinja {
namespace {

using Form = Sequence::Form;

const Value& other(const Arguments& arguments) {
  const auto bound = arguments.bind({"other"});
  check<Fault>(bound[0], arguments.what, " expects something to compare with");
  return *bound[0];
}

// A test without arguments, of the value alone.
template <bool (*kOf)(const Value&)>
bool plain(Session&, const Value& value, const Arguments& arguments) {
  arguments.bind({});
  return kOf(value);
}

bool is_defined(const Value& value) { return !value.undefined(); }
bool is_undefined(const Value& value) { return value.undefined(); }
bool is_none(const Value& value) { return value.none(); }
bool is_string(const Value& value) { return value.text() != nullptr; }
bool is_boolean(const Value& value) { return value.get<bool>() != nullptr; }
bool is_integer(const Value& value) { return value.get<int64_t>() != nullptr; }
bool is_float(const Value& value) { return value.get<double>() != nullptr; }
bool is_number(const Value& value) { return is_boolean(value) || is_integer(value) || is_float(value); }
bool is_mapping(const Value& value) { return value.mapping() != nullptr; }
bool is_just_true(const Value& value) { return is_boolean(value) && *value.get<bool>(); }
bool is_just_false(const Value& value) { return is_boolean(value) && !*value.get<bool>(); }
bool is_callable(const Value& value) { return value.get<Function>() || value.get<const MacroStatement*>(); }
bool is_iterable(const Value& value) {
  return value.undefined() || value.text() || value.mapping() || value.sequence() ||
         value.get<std::shared_ptr<LoopState>>();
}
bool is_sequence(const Value& value) {
  return value.undefined() || value.text() || value.mapping() ||
         (value.sequence() && value.sequence()->form <= Form::range);
}
bool is_even(const Value& value) { return integer_of(value, "what is even or odd") % 2 == 0; }
bool is_odd(const Value& value) { return !is_even(value); }
bool is_lower(const Value& value) {
  const std::string& text = text_of(value, "what is lower or upper");
  return lower(text) == text && upper(text) != text;
}
bool is_upper(const Value& value) {
  const std::string& text = text_of(value, "what is lower or upper");
  return upper(text) == text && lower(text) != text;
}

bool is_divisible(Session&, const Value& value, const Arguments& arguments) {
  const auto bound = arguments.bind({"num"});
  check<Fault>(bound[0], arguments.what, " expects a number");
  const int64_t by = integer_of(*bound[0], "a divisor");
  check<Fault>(by != 0, "a divisor is 0");
  return by == -1 || integer_of(value, "what is divided") % by == 0;
}

bool is_equal(Session& session, const Value& value, const Arguments& arguments) {
  return equal(session.work, value, other(arguments));
}
bool is_unequal(Session& session, const Value& value, const Arguments& arguments) {
  return !equal(session.work, value, other(arguments));
}
bool is_less(Session&, const Value& value, const Arguments& arguments) {
  return order_of(value, other(arguments)) == -1;
}
bool is_at_most(Session&, const Value& value, const Arguments& arguments) {
  return order_of(value, other(arguments)) <= 0;
}
bool is_greater(Session&, const Value& value, const Arguments& arguments) {
  return order_of(value, other(arguments)) == 1;
}
bool is_at_least(Session&, const Value& value, const Arguments& arguments) {
  const int order = order_of(value, other(arguments));
  return order == 0 || order == 1;
}
bool is_in(Session& session, const Value& value, const Arguments& arguments) {
  const auto bound = arguments.bind({"seq"});
  check<Fault>(bound[0], arguments.what, " expects something to look in");
  return contains(session.work, *bound[0], value);
}
// Python's `is`, of values of which there is but one.
bool is_same(Session&, const Value& value, const Arguments& arguments) {
  const Value& second = other(arguments);
  const auto single = [](const Value& one) { return one.none() || is_boolean(one); };
  check<Fault>(single(value) || single(second), arguments.what, " of ", kind_of(value), " and ",
               kind_of(second), " is not supported, expected true, false or none");
  if (!single(value) || !single(second)) return false;
  return value.none() == second.none() && (value.none() || *value.get<bool>() == *second.get<bool>());
}

constexpr std::array<std::pair<std::string_view, Test>, 36> kTests{{
    {"!=", is_unequal},
    {"boolean", plain<is_boolean>},
    {"callable", plain<is_callable>},
    {"defined", plain<is_defined>},
    {"divisibleby", is_divisible},
    {"eq", is_equal},
    {"==", is_equal},
    {"equalto", is_equal},
    {"even", plain<is_even>},
    {"false", plain<is_just_false>},
    {"float", plain<is_float>},
    {"ge", is_at_least},
    {">=", is_at_least},
    {"greaterthan", is_greater},
    {"gt", is_greater},
    {">", is_greater},
    {"in", is_in},
    {"integer", plain<is_integer>},
    {"iterable", plain<is_iterable>},
    {"le", is_at_most},
    {"<=", is_at_most},
    {"lessthan", is_less},
    {"lower", plain<is_lower>},
    {"lt", is_less},
    {"<", is_less},
    {"mapping", plain<is_mapping>},
    {"ne", is_unequal},
    {"none", plain<is_none>},
    {"number", plain<is_number>},
    {"odd", plain<is_odd>},
    {"sameas", is_same},
    {"sequence", plain<is_sequence>},
    {"string", plain<is_string>},
    {"true", plain<is_just_true>},
    {"undefined", plain<is_undefined>},
    {"upper", plain<is_upper>},
}};

}  // namespace

Test find_test(std::string_view name) {
  if (name.empty()) return nullptr;
  const auto found =
      std::find_if(kTests.begin(), kTests.end(), [&](const auto& one) { return one.first == name; });
  return found == kTests.end() ? nullptr : found->second;
}

std::string test_names() {
  std::vector<std::string> names;
  for (const auto& [name, test] : kTests) names.emplace_back(name);
  return join(names);
}

}  // namespace longreach::data::jinja
