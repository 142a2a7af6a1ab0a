// Statements, names and what is written.
#include <algorithm>

#include "data/chat_template/interpreter.h"
#include "data/chat_template/written.h"

namespace longreach::data::jinja {

using Kind = Statement::Kind;

const Value* Scope::find(std::string_view name) const {
  for (const Scope* scope = this; scope; scope = scope->around)
    for (const auto& [held, value] : scope->names)
      if (held == name) return &value;
  return nullptr;
}

void Scope::set(const std::string& name, Value value) {
  for (auto& [held, place] : names)
    if (held == name) {
      place = std::move(value);
      return;
    }
  names.emplace_back(name, std::move(value));
}

void Interpreter::run(const Block& block) {
  root_.around = &variables_;
  execute(block, root_);
}

void Interpreter::write(const std::string& text) {
  session_.work.spend(text.size());
  *out_ += text;
}

std::string Interpreter::captured(const Block& body, Scope& scope) {
  std::string text;
  std::string* outer = std::exchange(out_, &text);
  execute(body, scope);
  out_ = outer;
  return text;
}

Interpreter::Flow Interpreter::execute(const Block& block, Scope& scope) {
  for (const auto& statement : block)
    if (const Flow flow = execute(*statement, scope); flow != Flow::on) return flow;
  return Flow::on;
}

Interpreter::Flow Interpreter::execute(const Statement& statement, Scope& scope) {
  line_ = statement.line;
  session_.work.spend(32);
  switch (statement.kind) {
    case Kind::text:
      write(statement.text);
      break;
    case Kind::print:
      write(written(session_.work, evaluate(*statement.expression, scope)));
      break;
    case Kind::branch: {
      const bool taken = is_true(evaluate(*statement.expression, scope));
      return execute(taken ? statement.body : statement.otherwise, scope);
    }
    case Kind::loop:
      return execute_loop(statement, scope);
    case Kind::set:
      assign(statement.target, evaluate(*statement.expression, scope), scope);
      break;
    case Kind::set_block: {
      Scope inside{&scope, {}};
      std::string text = captured(statement.body, inside);
      assign(statement.target, filtered(*statement.expression, std::move(text), inside), scope);
      break;
    }
    case Kind::macro:
      check<Fault>(&scope == &root_, "the macro `", statement.macro->name,
                   "` inside of a loop or another macro is not supported");
      scope.set(statement.macro->name, {statement.macro.get()});
      break;
    case Kind::filtered: {
      Scope inside{&scope, {}};
      std::string text = captured(statement.body, inside);
      write(written(session_.work, filtered(*statement.expression, std::move(text), inside)));
      break;
    }
    case Kind::generation:
      execute_generation(statement, scope);
      break;
    case Kind::stop:
      return Flow::stop;
    case Kind::skip:
      return Flow::skip;
  }
  return Flow::on;
}

void Interpreter::execute_generation(const Statement& statement, const Scope& scope) {
  check<Fault>(out_ == &text_, "`generation` inside of a macro, a filter or a set is not supported");
  Scope inside{&scope, {}};
  const size_t begin = text_.size();
  execute(statement.body, inside);
  generated_.emplace_back(begin, text_.size());
}

Interpreter::Flow Interpreter::execute_loop(const Statement& loop, Scope& scope) {
  auto items = iterate(session_.work, evaluate(*loop.expression, scope));
  auto state = std::make_shared<LoopState>();
  for (const Value& item : items) {
    if (loop.condition) {
      Scope inside{&scope, {}};
      assign(loop.target, item, inside);
      if (!is_true(evaluate(*loop.condition, inside))) continue;
    }
    state->items.push_back(item);
  }
  if (state->items.empty()) {
    Scope inside{&scope, {}};
    return execute(loop.otherwise, inside);
  }
  for (size_t i = 0; i < state->items.size(); ++i) {
    state->index = i;
    Scope inside{&scope, {}};
    inside.set("loop", {state});
    assign(loop.target, state->items[i], inside);
    if (execute(loop.body, inside) == Flow::stop) break;
  }
  return Flow::on;
}

Value Interpreter::filtered(const Expression& filters, std::string text, Scope& scope) {
  if (filters.kind == Expression::Kind::constant) return make_text(session_.work, std::move(text));
  const Value value = filtered(*filters.parts[0], std::move(text), scope);
  return find_filter(filters.name)(session_, value,
                                   arguments_of(filters, "filter `" + filters.name + "`", scope));
}

void Interpreter::assign(const Target& target, const Value& value, Scope& scope) {
  if (!target.attribute.empty()) {
    const Value* found = scope.find(target.names[0]);
    const auto* space = found ? found->get<std::shared_ptr<Namespace>>() : nullptr;
    check<Fault>(space, "`", target.names[0], "` is ",
                 kind_of(found ? *found : Value{Undefined{target.names[0]}}), ", expected a namespace");
    session_.work.spend(64);
    return (*space)->set(target.attribute, value);
  }
  if (!target.tuple) return scope.set(target.names[0], value);
  const auto items = iterate(session_.work, value);
  check<Fault>(items.size() == target.names.size(), "found ", items.size(), " values for ",
               target.names.size(), " names");
  for (size_t i = 0; i < items.size(); ++i) scope.set(target.names[i], items[i]);
}

Value Interpreter::call_macro(const MacroStatement& macro, const Arguments& arguments) {
  const auto& parameters = macro.parameters;
  check<Fault>(arguments.positional.size() <= parameters.size(), arguments.what, " has ",
               arguments.positional.size(), " arguments, allowed are ", parameters.size());
  Scope inside{&root_, {}};
  for (size_t i = 0; i < arguments.positional.size(); ++i)
    inside.set(parameters[i].name, arguments.positional[i]);
  const auto given = [&](const std::string& name) {
    return std::any_of(inside.names.begin(), inside.names.end(),
                       [&](const auto& one) { return one.first == name; });
  };
  for (const auto& argument : arguments.named) {
    const std::string& name = argument.first;
    const bool known =
        std::any_of(parameters.begin(), parameters.end(), [&](const auto& one) { return one.name == name; });
    check<Fault>(known && !given(name), arguments.what, " has ", known ? "twice the" : "no", " argument `",
                 name, "`");
    inside.set(name, argument.second);
  }
  for (const auto& parameter : parameters) {
    if (given(parameter.name)) continue;
    inside.set(parameter.name,
               parameter.fallback ? evaluate(*parameter.fallback, inside) : Value{Undefined{parameter.name}});
  }
  return make_text(session_.work, captured(macro.body, inside));
}

}  // namespace longreach::data::jinja
