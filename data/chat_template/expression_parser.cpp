// Precedence as in jinja2.parser: or, and, not, comparisons, + -, ~, * / // %, **, signs, then filters and
// tests.
#include "data/chat_template/expression_parser.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include "data/chat_template/builtins.h"

namespace longreach::data::jinja {
namespace {

using Kind = Expression::Kind;
constexpr int kMaxDepth = 100;
constexpr size_t kMaxChain = 50;  // filters, subscripts and calls on one value, and operators in a row

}  // namespace

ExpressionParser::Deeper::Deeper(ExpressionParser& parser) : parser_(parser) {
  if (++parser.depth_ > kMaxDepth) parser.fail("nested deeper than ", kMaxDepth, " levels");
}

std::string ExpressionParser::shown(const Lexeme& lexeme) {
  switch (lexeme.kind) {
    case Lexeme::Kind::block_end:
      return "the end of the tag";
    case Lexeme::Kind::print_end:
      return "the end of the tag";
    case Lexeme::Kind::end:
      return "the end of the template";
    default:
      return "`" + one_line(lexeme.value, 60) + "`";
  }
}

bool ExpressionParser::skip(std::string_view symbol) {
  if (!now().is(symbol)) return false;
  take();
  return true;
}
bool ExpressionParser::skip_name(std::string_view name) {
  if (!now().is_name(name)) return false;
  take();
  return true;
}
void ExpressionParser::expect(std::string_view symbol) {
  if (!skip(symbol)) fail("expected `", symbol, "`, found ", shown(now()));
}
std::string ExpressionParser::expect_name() {
  if (now().kind != Lexeme::Kind::name) fail("expected a name, found ", shown(now()));
  return take().value;
}

ExpressionPtr ExpressionParser::make(Kind kind) const {
  auto made = std::make_unique<Expression>();
  made->kind = kind;
  made->line = now().line;
  return made;
}
ExpressionPtr ExpressionParser::make(Kind kind, ExpressionPtr a, ExpressionPtr b) const {
  auto made = make(kind);
  made->line = a->line;
  made->parts.push_back(std::move(a));
  if (b) made->parts.push_back(std::move(b));
  return made;
}

bool ExpressionParser::ends_tuple() const {
  const Lexeme& lexeme = now();
  return lexeme.kind == Lexeme::Kind::print_end || lexeme.kind == Lexeme::Kind::block_end || lexeme.is(")") ||
         lexeme.is_name("recursive");
}

ExpressionPtr ExpressionParser::parse_tuple(bool conditional) {
  auto tuple = make(Kind::tuple);
  bool several = false;
  while (!ends_tuple()) {
    tuple->parts.push_back(parse_expression(conditional));
    if (!skip(",")) break;
    several = true;
  }
  if (tuple->parts.empty() && !now().is(")")) fail("expected an expression, found ", shown(now()));
  if (several || tuple->parts.empty()) return tuple;
  return std::move(tuple->parts[0]);
}

ExpressionPtr ExpressionParser::parse_expression(bool conditional) {
  const Deeper deeper(*this);
  auto value = parse_either();
  if (!conditional) return value;
  while (skip_name("if")) {
    auto condition = parse_either();
    value = make(Kind::conditional, std::move(condition), std::move(value));
    value->parts.push_back(skip_name("else") ? parse_expression() : nullptr);
    if (value->parts.back() == nullptr && now().is_name("if"))
      fail("one `if` behind another is not supported");
  }
  return value;
}

ExpressionPtr ExpressionParser::parse_either() {
  auto left = parse_both();
  for (size_t i = 0; skip_name("or"); ++i) {
    if (i == kMaxChain) fail("more than ", kMaxChain, " operators in a row");
    left = make(Kind::either, std::move(left), parse_both());
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_both() {
  auto left = parse_not();
  for (size_t i = 0; skip_name("and"); ++i) {
    if (i == kMaxChain) fail("more than ", kMaxChain, " operators in a row");
    left = make(Kind::both, std::move(left), parse_not());
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_not() {
  const Deeper deeper(*this);
  if (skip_name("not")) return make(Kind::invert, parse_not());
  return parse_compare();
}

ExpressionPtr ExpressionParser::parse_compare() {
  constexpr std::array<std::string_view, 6> kOperators{"==", "!=", "<", "<=", ">", ">="};
  auto compare = make(Kind::compare, parse_sum());
  for (;;) {
    const auto is_now = [&](std::string_view symbol) { return now().is(symbol); };
    if (std::any_of(kOperators.begin(), kOperators.end(), is_now)) {
      compare->operators.push_back(take().value);
    } else if (skip_name("in")) {
      compare->operators.emplace_back("in");
    } else if (now().is_name("not") && next().is_name("in")) {
      take();
      take();
      compare->operators.emplace_back("not in");
    } else {
      break;
    }
    compare->parts.push_back(parse_sum());
  }
  if (compare->operators.empty()) return std::move(compare->parts[0]);
  return compare;
}

ExpressionPtr ExpressionParser::parse_sum() {
  auto left = parse_concat();
  for (size_t i = 0; now().is("+") || now().is("-"); ++i) {
    if (i == kMaxChain) fail("more than ", kMaxChain, " operators in a row");
    const std::string symbol = take().value;
    left = make(Kind::arithmetic, std::move(left), parse_concat());
    left->name = symbol;
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_concat() {
  auto concat = make(Kind::concat, parse_product());
  while (skip("~")) concat->parts.push_back(parse_product());
  if (concat->parts.size() == 1) return std::move(concat->parts[0]);
  return concat;
}

ExpressionPtr ExpressionParser::parse_product() {
  auto left = parse_power();
  for (size_t i = 0; now().is("*") || now().is("/") || now().is("//") || now().is("%"); ++i) {
    if (i == kMaxChain) fail("more than ", kMaxChain, " operators in a row");
    const std::string symbol = take().value;
    left = make(Kind::arithmetic, std::move(left), parse_power());
    left->name = symbol;
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_power() {
  auto left = parse_unary(true);
  if (now().is("**")) fail("`**` is not supported");
  return left;
}

ExpressionPtr ExpressionParser::parse_unary(bool with_filters) {
  const Deeper deeper(*this);
  ExpressionPtr value;
  if (skip("-"))
    value = make(Kind::negate, parse_unary(false));
  else if (skip("+"))
    value = make(Kind::keep, parse_unary(false));
  else
    value = parse_primary();
  value = parse_postfix(std::move(value));
  return with_filters ? parse_filters(std::move(value)) : std::move(value);
}

ExpressionPtr ExpressionParser::parse_primary() {
  const Lexeme& lexeme = now();
  auto made = make(Kind::constant);
  if (lexeme.kind == Lexeme::Kind::name) {
    const std::string name = take().value;
    if (name == "true" || name == "True" || name == "false" || name == "False") {
      made->value = {name[0] == 't' || name[0] == 'T'};
    } else if (name == "none" || name == "None") {
      made->value = {None{}};
    } else {
      made->kind = Kind::name;
      made->name = name;
    }
  } else if (lexeme.kind == Lexeme::Kind::string) {
    std::string value;
    while (now().kind == Lexeme::Kind::string) value += take().value;
    made->value = {std::make_shared<const std::string>(value)};
  } else if (lexeme.kind == Lexeme::Kind::integer) {
    const std::string digits = take().value;
    int64_t number = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (error != std::errc() || end != digits.data() + digits.size())
      fail("the number ", digits, " is too large");
    made->value = {number};
  } else if (lexeme.kind == Lexeme::Kind::real) {
    made->value = {std::strtod(take().value.c_str(), nullptr)};
  } else if (skip("(")) {
    made = parse_tuple();
    expect(")");
  } else if (skip("[")) {
    made = parse_list();
  } else if (skip("{")) {
    made = parse_dict();
  } else {
    fail("expected an expression, found ", shown(lexeme));
  }
  return made;
}

ExpressionPtr ExpressionParser::parse_list() {
  auto list = make(Kind::list);
  while (!skip("]")) {
    if (!list->parts.empty()) expect(",");
    if (skip("]")) break;
    list->parts.push_back(parse_expression());
  }
  return list;
}

ExpressionPtr ExpressionParser::parse_dict() {
  auto dict = make(Kind::dict);
  while (!skip("}")) {
    if (!dict->parts.empty()) expect(",");
    if (skip("}")) break;
    dict->parts.push_back(parse_expression());
    expect(":");
    dict->parts.push_back(parse_expression());
  }
  return dict;
}

ExpressionPtr ExpressionParser::parse_postfix(ExpressionPtr value) {
  for (size_t i = 0;; ++i) {
    if (i == kMaxChain) fail("more than ", kMaxChain, " subscripts and calls in a row");
    if (now().is(".") || now().is("["))
      value = parse_subscript(std::move(value));
    else if (now().is("("))
      value = parse_call(std::move(value));
    else
      return value;
  }
}

ExpressionPtr ExpressionParser::parse_subscript(ExpressionPtr value) {
  if (skip(".")) {
    auto attribute = make(Kind::attribute, std::move(value));
    attribute->line = now().line;
    attribute->name = expect_name();
    return attribute;
  }
  expect("[");
  ExpressionPtr bounds[3];
  size_t colons = 0;
  while (!now().is("]")) {
    if (skip(":")) {
      if (++colons > 2) fail("a slice has three parts at most");
    } else if (!bounds[colons]) {
      bounds[colons] = parse_expression();
    } else {
      fail("expected `]`, found ", shown(now()));
    }
  }
  expect("]");
  if (colons == 0) {
    if (!bounds[0]) fail("expected an expression, found `]`");
    return make(Kind::item, std::move(value), std::move(bounds[0]));
  }
  auto slice = make(Kind::slice, std::move(value));
  for (auto& bound : bounds) slice->parts.push_back(std::move(bound));
  return slice;
}

void ExpressionParser::parse_arguments(Expression& call) {
  expect("(");
  bool first = true;
  while (!skip(")")) {
    if (!first) expect(",");
    first = false;
    if (skip(")")) break;
    if (now().is("*") || now().is("**")) fail("arguments with `", now().value, "` are not supported");
    if (now().kind == Lexeme::Kind::name && next().is("=")) {
      const std::string name = take().value;
      take();
      call.keywords.emplace_back(name, parse_expression());
    } else {
      if (!call.keywords.empty()) fail("an argument without a name behind one with a name");
      call.parts.push_back(parse_expression());
    }
  }
}

ExpressionPtr ExpressionParser::parse_call(ExpressionPtr value) {
  auto call = make(Kind::call, std::move(value));
  parse_arguments(*call);
  return call;
}

ExpressionPtr ExpressionParser::parse_filters(ExpressionPtr value) {
  for (size_t i = 0;; ++i) {
    if (i == kMaxChain) fail("more than ", kMaxChain, " filters and tests in a row");
    if (skip("|"))
      value = parse_filter(std::move(value));
    else if (now().is_name("is"))
      value = parse_test(std::move(value));
    else if (now().is("("))
      value = parse_call(std::move(value));
    else
      return value;
  }
}

ExpressionPtr ExpressionParser::parse_filter(ExpressionPtr value) {
  auto filter = make(Kind::filter, std::move(value));
  filter->line = now().line;
  filter->name = expect_name();
  if (!find_filter(filter->name))
    fail("filter `", one_line(filter->name, 60), "` is not known; the known ones are ", filter_names());
  if (now().is("(")) parse_arguments(*filter);
  return filter;
}

ExpressionPtr ExpressionParser::parse_test(ExpressionPtr value) {
  take();
  const bool negated = skip_name("not");
  auto test = make(Kind::test, std::move(value));
  test->line = now().line;
  test->name = expect_name();
  if (!find_test(test->name))
    fail("test `", one_line(test->name, 60), "` is not known; the known ones are ", test_names());
  const Lexeme& follows = now();
  const bool word = follows.kind == Lexeme::Kind::name && !follows.is_name("else") &&
                    !follows.is_name("or") && !follows.is_name("and");
  if (follows.is("(")) {
    parse_arguments(*test);
  } else if (word || follows.kind == Lexeme::Kind::string || follows.kind == Lexeme::Kind::integer ||
             follows.kind == Lexeme::Kind::real || follows.is("[") || follows.is("{")) {
    if (follows.is_name("is")) fail("one test behind another");
    test->parts.push_back(parse_postfix(parse_primary()));
  }
  return negated ? make(Kind::invert, std::move(test)) : std::move(test);
}

}  // namespace longreach::data::jinja
