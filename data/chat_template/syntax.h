// A chat template as a tree.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/chat_template/value.h"

namespace longreach::data::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  enum class Kind {
    constant,     // value
    name,         // name
    attribute,    // parts[0].name
    item,         // parts[0][parts[1]]
    slice,        // parts[0][parts[1]:parts[2]:parts[3]], of which some are null
    call,         // parts[0](parts[1...], keywords)
    filter,       // parts[0] | name(parts[1...], keywords)
    test,         // parts[0] is name(parts[1...], keywords)
    list,         // [parts]
    tuple,        // (parts)
    dict,         // keywords, or parts in pairs
    negate,       // -parts[0]
    keep,         // +parts[0]
    invert,       // not parts[0]
    both,         // parts[0] and parts[1]
    either,       // parts[0] or parts[1]
    conditional,  // parts[1] if parts[0] else parts[2], which may be null
    compare,      // parts[0] operators[0] parts[1] operators[1] parts[2] ...
    concat,       // parts[0] ~ parts[1] ~ ...
    arithmetic,   // parts[0] name parts[1]
  };
  Kind kind;
  int64_t line;
  std::string name;
  Value value;
  std::vector<ExpressionPtr> parts;
  std::vector<std::pair<std::string, ExpressionPtr>> keywords;
  std::vector<std::string> operators;
};

// What a `set` or a `for` gives values to: names, or an attribute of a namespace.
struct Target {
  std::vector<std::string> names;
  bool tuple = false;
  std::string attribute;
};

struct Statement;
using Block = std::vector<std::unique_ptr<Statement>>;

struct Statement {
  enum class Kind {
    text,        // text
    print,       // expression
    branch,      // if expression: body, else: otherwise
    loop,        // for target in expression if condition: body, else: otherwise
    set,         // target = expression
    set_block,   // target = body, through the filters of expression
    macro,       // macro
    filtered,    // body through the filters of expression
    stop,        // break
    skip,        // continue
    generation,  // body: what the assistant says
  };
  Kind kind;
  int64_t line;
  std::string text;
  Target target;
  ExpressionPtr expression, condition;
  Block body, otherwise;
  std::unique_ptr<MacroStatement> macro;
};

struct MacroStatement {
  std::string name;
  struct Parameter {
    std::string name;
    ExpressionPtr fallback;  // may be null
  };
  std::vector<Parameter> parameters;
  Block body;
};

}  // namespace longreach::data::jinja
