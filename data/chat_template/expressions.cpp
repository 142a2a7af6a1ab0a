// Expressions.
#include <algorithm>
#include <array>
#include <cmath>

#include "data/chat_template/characters.h"
#include "data/chat_template/interpreter.h"
#include "data/chat_template/written.h"

namespace longreach::data::jinja {
namespace {

using Kind = Expression::Kind;
using Form = Sequence::Form;

constexpr int kMaxDepth = 400;  // expressions and macros within each other

// Jinja's own names that are not known here.
constexpr std::array<std::string_view, 8> kForeignNames{"caller", "cycler", "joiner", "kwargs",
                                                        "lipsum", "self",   "super",  "varargs"};

bool is_integer(const Value& value) { return value.get<int64_t>() || value.get<bool>(); }

double real_of(const Value& value) {
  if (const auto* real = value.get<double>()) return *real;
  return static_cast<double>(integer_of(value, "a number"));
}

Value add_integers(const std::string& symbol, int64_t a, int64_t b) {
  int64_t result = 0;
  const bool overflow = symbol == "+"   ? __builtin_add_overflow(a, b, &result)
                        : symbol == "-" ? __builtin_sub_overflow(a, b, &result)
                                        : __builtin_mul_overflow(a, b, &result);
  check<Fault>(!overflow, "a number is too large");
  return {result};
}

// Rounded down, as Python does.
Value divide_integers(const std::string& symbol, int64_t a, int64_t b) {
  check<Fault>(a != INT64_MIN || b != -1, "a number is too large");
  int64_t quotient = a / b, rest = a % b;
  if (rest != 0 && (rest < 0) != (b < 0)) {
    --quotient;
    rest += b;
  }
  return {symbol == "//" ? quotient : rest};
}

Value compute_numbers(const std::string& symbol, const Value& a, const Value& b) {
  const bool divides = symbol == "/" || symbol == "//" || symbol == "%";
  check<Fault>(!divides || real_of(b) != 0, "division by 0");
  if (symbol != "/" && is_integer(a) && is_integer(b)) {
    const int64_t x = integer_of(a, ""), y = integer_of(b, "");
    return divides ? divide_integers(symbol, x, y) : add_integers(symbol, x, y);
  }
  const double x = real_of(a), y = real_of(b);
  check<Fault>(symbol != "//" && symbol != "%", "`", symbol, "` of real numbers is not supported");
  return {symbol == "+" ? x + y : symbol == "-" ? x - y : symbol == "*" ? x * y : x / y};
}

// The indices that [start:stop:step] takes of `length` items.
std::vector<int64_t> slice_indices(int64_t length, const std::optional<int64_t>& start,
                                   const std::optional<int64_t>& stop, int64_t step) {
  check<Fault>(step != 0, "the step of a slice is 0");
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? length : length - 1;
  const auto place = [&](int64_t at) {
    if (at < 0) at = at < -length ? low : at + length;
    return std::clamp(at, low, std::max(low, high));
  };
  const int64_t begin = start      ? place(*start)
                        : step > 0 ? low
                                   : high,
                end = stop       ? place(*stop)
                      : step > 0 ? high
                                 : low;
  std::vector<int64_t> indices;
  if (step > 0)
    for (int64_t i = begin; i<end; i = step> length ? length : i + step) indices.push_back(i);
  else
    for (int64_t i = begin; i > end; i = step < -length ? -1 : i + step) indices.push_back(i);
  return indices;
}

// One level more of what is being evaluated.
class Deeper {
 public:
  explicit Deeper(int& depth) : depth_(depth) {
    check<Fault>(depth < kMaxDepth, "nested deeper than ", kMaxDepth, " levels");
    ++depth_;
  }
  ~Deeper() { --depth_; }
  Deeper(const Deeper&) = delete;
  Deeper& operator=(const Deeper&) = delete;

 private:
  int& depth_;
};

}  // namespace

Value Interpreter::evaluate(const Expression& expression, const Scope& scope) {
  const Deeper deeper(depth_);
  session_.work.spend(32);
  line_ = expression.line;
  return compute(expression, scope);
}

Value Interpreter::compute(const Expression& expression, const Scope& scope) {
  const auto part = [&](size_t i) { return evaluate(*expression.parts[i], scope); };
  switch (expression.kind) {
    case Kind::constant:
      return expression.value;
    case Kind::name:
      return look_up(expression.name, scope);
    case Kind::attribute:
      return attribute(part(0), expression.name);
    case Kind::item: {
      const Value value = part(0), key = part(1);
      if (value.get<std::shared_ptr<Namespace>>() || value.get<std::shared_ptr<LoopState>>())
        return attribute(value, text_of(key, "a key"));
      return item_of(session_, value, key);
    }
    case Kind::slice:
      return slice(expression, scope);
    case Kind::call:
      return call(expression, scope);
    case Kind::filter: {
      const Value value = part(0);
      return find_filter(expression.name)(
          session_, value, arguments_of(expression, "filter `" + expression.name + "`", scope));
    }
    case Kind::test: {
      const Value value = part(0);
      return {find_test(expression.name)(session_, value,
                                         arguments_of(expression, "test `" + expression.name + "`", scope))};
    }
    case Kind::list:
    case Kind::tuple: {
      std::vector<Value> items;
      for (size_t i = 0; i < expression.parts.size(); ++i) items.push_back(part(i));
      return make_sequence(session_.work, std::move(items),
                           expression.kind == Kind::list ? Form::list : Form::tuple);
    }
    case Kind::dict:
      return make_dict(expression, scope);
    case Kind::negate: {
      const Value value = part(0);
      if (const auto* real = value.get<double>()) return {-*real};
      return add_integers("-", 0, integer_of(value, "what `-` is before"));
    }
    case Kind::keep: {
      Value value = part(0);
      if (value.get<double>()) return value;
      return {integer_of(value, "what `+` is before")};
    }
    case Kind::invert:
      return {!is_true(part(0))};
    case Kind::both: {
      const Value left = part(0);
      return is_true(left) ? part(1) : left;
    }
    case Kind::either: {
      const Value left = part(0);
      return is_true(left) ? left : part(1);
    }
    case Kind::conditional:
      if (is_true(part(0))) return part(1);
      return expression.parts[2] ? part(2) : Value{Undefined{"an `if` without `else`"}};
    case Kind::compare:
      return compare(expression, scope);
    case Kind::concat: {
      std::string text;
      for (size_t i = 0; i < expression.parts.size(); ++i) text += written(session_.work, part(i));
      return make_text(session_.work, std::move(text));
    }
    case Kind::arithmetic: {
      const Value left = part(0), right = part(1);
      line_ = expression.line;
      return arithmetic(expression.name, left, right);
    }
  }
  return {};
}

Value Interpreter::look_up(const std::string& name, const Scope& scope) {
  if (const Value* found = scope.find(name)) return *found;
  if (const Builtin function = find_function(name)) return {Function{function}};
  const bool foreign = std::find(kForeignNames.begin(), kForeignNames.end(), name) != kForeignNames.end();
  check<Fault>(!foreign, "Jinja's `", name, "` is not supported");
  return {Undefined{name}};
}

Value Interpreter::attribute(const Value& value, const std::string& name) {
  check<Fault>(!value.undefined(), "`", value.undefined() ? value.get<Undefined>()->name : "",
               "` is not defined, and has no `", name, "`");
  if (const auto* loop = value.get<std::shared_ptr<LoopState>>()) return loop_attribute(**loop, name);
  if (const auto* space = value.get<std::shared_ptr<Namespace>>()) {
    session_.work.spend(8 * (*space)->items.size());
    const Value* found = (*space)->find(name);
    return found ? *found : Value{Undefined{name}};
  }
  const bool function = value.get<Function>() || value.get<const MacroStatement*>();
  check<Fault>(!function && !is_method(value, name), "`", name, "` of ", kind_of(value),
               " is not called, which is not supported");
  if (const auto* mapping = value.mapping()) {
    session_.work.spend(8 * mapping->items.size());
    if (const Value* found = mapping->find(name)) return *found;
  }
  return {Undefined{name}};
}

Value Interpreter::loop_attribute(const LoopState& loop, const std::string& name) {
  const auto index = static_cast<int64_t>(loop.index), count = static_cast<int64_t>(loop.items.size());
  if (name == "index") return {index + 1};
  if (name == "index0") return {index};
  if (name == "revindex") return {count - index};
  if (name == "revindex0") return {count - index - 1};
  if (name == "first") return {index == 0};
  if (name == "last") return {index + 1 == count};
  if (name == "length") return {count};
  if (name == "depth") return {int64_t{1}};
  if (name == "depth0") return {int64_t{0}};
  if (name == "previtem") return index > 0 ? loop.items[loop.index - 1] : Value{Undefined{"loop.previtem"}};
  if (name == "nextitem")
    return index + 1 < count ? loop.items[loop.index + 1] : Value{Undefined{"loop.nextitem"}};
  throw Fault(longreach::text("`loop.", one_line(name, 60), "` is not supported"));
}

Value Interpreter::slice(const Expression& expression, const Scope& scope) {
  const Value value = evaluate(*expression.parts[0], scope);
  const auto bound = [&](size_t i) -> std::optional<int64_t> {
    if (!expression.parts[i]) return std::nullopt;
    const Value given = evaluate(*expression.parts[i], scope);
    if (given.none()) return std::nullopt;
    return integer_of(given, "a bound of a slice");
  };
  const auto start = bound(1), stop = bound(2), step = bound(3);
  const bool sliced = value.text() || (value.sequence() && value.sequence()->form <= Form::range);
  check<Fault>(sliced, "a slice of ", kind_of(value), " is not possible");
  const auto items = iterate(session_.work, value);
  std::vector<Value> taken;
  std::string text;
  for (const int64_t i : slice_indices(static_cast<int64_t>(items.size()), start, stop, step.value_or(1))) {
    const Value& item = items[static_cast<size_t>(i)];
    if (value.text())
      text += *item.text();
    else
      taken.push_back(item);
  }
  if (value.text()) return make_text(session_.work, std::move(text));
  return make_sequence(session_.work, std::move(taken), value.sequence()->form);
}

Value Interpreter::make_dict(const Expression& expression, const Scope& scope) {
  std::vector<std::pair<std::string, Value>> items;
  for (size_t i = 0; i + 1 < expression.parts.size(); i += 2) {
    const std::string key = text_of(evaluate(*expression.parts[i], scope), "a key of a mapping");
    Value value = evaluate(*expression.parts[i + 1], scope);
    session_.work.spend(8 * items.size());
    const auto same =
        std::find_if(items.begin(), items.end(), [&](const auto& item) { return item.first == key; });
    if (same == items.end())
      items.emplace_back(key, std::move(value));
    else
      same->second = std::move(value);
  }
  return make_mapping(session_.work, std::move(items));
}

Value Interpreter::compare(const Expression& expression, const Scope& scope) {
  Value left = evaluate(*expression.parts[0], scope);
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    Value right = evaluate(*expression.parts[i + 1], scope);
    line_ = expression.line;
    if (!compare(expression.operators[i], left, right)) return {false};
    left = std::move(right);
  }
  return {true};
}

bool Interpreter::compare(const std::string& symbol, const Value& a, const Value& b) {
  if (symbol == "==") return equal(session_.work, a, b);
  if (symbol == "!=") return !equal(session_.work, a, b);
  if (symbol == "in") return contains(session_.work, b, a);
  if (symbol == "not in") return !contains(session_.work, b, a);
  const int order = order_of(a, b);
  if (symbol == "<") return order == -1;
  if (symbol == ">") return order == 1;
  return order == 0 || order == (symbol == "<=" ? -1 : 1);
}

Value Interpreter::arithmetic(const std::string& symbol, const Value& a, const Value& b) {
  if (symbol == "+" && a.text() && b.text()) {
    session_.work.spend(a.text()->size() + b.text()->size());
    return make_text(session_.work, *a.text() + *b.text());
  }
  if (symbol == "+" && a.sequence() && b.sequence() && a.sequence()->form == b.sequence()->form &&
      a.sequence()->form <= Form::tuple) {
    auto items = iterate(session_.work, a);
    for (const Value& item : iterate(session_.work, b)) items.push_back(item);
    return make_sequence(session_.work, std::move(items), a.sequence()->form);
  }
  if (symbol == "*" && a.text() && is_integer(b)) {
    const auto times = static_cast<size_t>(std::max<int64_t>(0, integer_of(b, "")));
    const size_t size = a.text()->size();
    session_.work.spend(size > 0 && times > SIZE_MAX / size ? SIZE_MAX : size * times);
    std::string text;
    for (size_t i = 0; size > 0 && i < times; ++i) text += *a.text();
    return make_text(session_.work, std::move(text));
  }
  const auto number = [](const Value& value) { return is_integer(value) || value.get<double>(); };
  check<Fault>(number(a) && number(b), "`", symbol, "` of ", kind_of(a), " and ", kind_of(b),
               " is not possible");
  return compute_numbers(symbol, a, b);
}

Arguments Interpreter::arguments_of(const Expression& call, const std::string& what, const Scope& scope) {
  Arguments arguments{what, {}, {}};
  for (size_t i = 1; i < call.parts.size(); ++i)
    arguments.positional.push_back(evaluate(*call.parts[i], scope));
  for (const auto& [name, value] : call.keywords) arguments.named.emplace_back(name, evaluate(*value, scope));
  line_ = call.line;
  return arguments;
}

Value Interpreter::call(const Expression& expression, const Scope& scope) {
  const Expression& callee = *expression.parts[0];
  Value function;
  if (callee.kind == Kind::attribute) {
    const Value self = evaluate(*callee.parts[0], scope);
    line_ = callee.line;
    if (is_method(self, callee.name))
      return call_method(session_, self, callee.name,
                         arguments_of(expression, "`" + callee.name + "`", scope));
    function = attribute(self, callee.name);
  } else {
    function = evaluate(callee, scope);
  }
  const std::string name = callee.name.empty() ? "what is called" : "`" + callee.name + "`";
  const Arguments arguments = arguments_of(expression, name, scope);
  if (const auto* macro = function.get<const MacroStatement*>()) return call_macro(**macro, arguments);
  const auto* known = function.get<Function>();
  check<Fault>(known, name, " is ", kind_of(function), ", and cannot be called");
  return known->call(session_, {}, arguments);
}

}  // namespace longreach::data::jinja
