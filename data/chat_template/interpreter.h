// A template's tree at work.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "data/chat_template/builtins.h"
#include "data/chat_template/syntax.h"

namespace longreach::data::jinja {

// The names of a part of a template: what is set in a loop or a macro is forgotten behind it.
struct Scope {
  const Scope* around = nullptr;
  std::vector<std::pair<std::string, Value>> names;

  const Value* find(std::string_view name) const;
  void set(const std::string& name, Value value);
};

class Interpreter {
 public:
  // variables: what a template is given.
  Interpreter(Session& session, Scope variables) : session_(session), variables_(std::move(variables)) {}

  // Writes to text() and generated(). Throws Fault; line() is where.
  void run(const Block& block);
  int64_t line() const { return line_; }
  std::string& text() { return text_; }
  // From byte to byte of the text, what stands between {% generation %} and {% endgeneration %}.
  std::vector<std::pair<size_t, size_t>>& generated() { return generated_; }

 private:
  enum class Flow { on, stop, skip };  // behind a break, a continue

  Flow execute(const Block& block, Scope& scope);
  Flow execute(const Statement& statement, Scope& scope);
  Flow execute_loop(const Statement& loop, Scope& scope);
  void execute_generation(const Statement& statement, const Scope& scope);
  void write(const std::string& text);
  // What a body writes.
  std::string captured(const Block& body, Scope& scope);
  Value filtered(const Expression& filters, std::string text, Scope& scope);
  void assign(const Target& target, const Value& value, Scope& scope);

  Value evaluate(const Expression& expression, const Scope& scope);
  Value compute(const Expression& expression, const Scope& scope);
  Value look_up(const std::string& name, const Scope& scope);
  Value attribute(const Value& value, const std::string& name);
  Value loop_attribute(const LoopState& loop, const std::string& name);
  Value slice(const Expression& expression, const Scope& scope);
  Value make_dict(const Expression& expression, const Scope& scope);
  Value compare(const Expression& expression, const Scope& scope);
  bool compare(const std::string& symbol, const Value& a, const Value& b);
  Value arithmetic(const std::string& symbol, const Value& a, const Value& b);
  Arguments arguments_of(const Expression& call, const std::string& what, const Scope& scope);
  Value call(const Expression& expression, const Scope& scope);
  Value call_macro(const MacroStatement& macro, const Arguments& arguments);

  Session& session_;
  Scope variables_, root_;
  std::string text_;
  std::string* out_ = &text_;
  std::vector<std::pair<size_t, size_t>> generated_;
  int64_t line_ = 1;
  int depth_ = 0;
};

}  // namespace longreach::data::jinja
