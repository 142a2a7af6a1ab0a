// The expressions inside of tags.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "data/chat_template/lexer.h"
#include "data/chat_template/syntax.h"

namespace longreach::data::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Lexeme> lexemes) : lexemes_(std::move(lexemes)) {}

  // One expression, or a tuple of several with commas between them. conditional: whether `a if b` belongs to
  // it.
  ExpressionPtr parse_tuple(bool conditional = true);
  ExpressionPtr parse_expression(bool conditional = true);
  // A filter of `value`, behind its `|`.
  ExpressionPtr parse_filter(ExpressionPtr value);

 protected:
  template <class... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    throw DataError(one_line(text("line ", now().line, ": ", parts...)));
  }
  const Lexeme& now() const { return lexemes_[at_]; }
  const Lexeme& next() const { return lexemes_[at_ + 1 < lexemes_.size() ? at_ + 1 : at_]; }
  Lexeme take() { return lexemes_[at_ + 1 < lexemes_.size() ? at_++ : at_]; }
  bool skip(std::string_view symbol);
  bool skip_name(std::string_view name);
  void expect(std::string_view symbol);
  std::string expect_name();
  static std::string shown(const Lexeme& lexeme);
  ExpressionPtr make(Expression::Kind kind) const;
  ExpressionPtr make(Expression::Kind kind, ExpressionPtr a, ExpressionPtr b = nullptr) const;
  void parse_arguments(Expression& call);

  // Holds while a rule that contains itself is being read.
  class Deeper {
   public:
    explicit Deeper(ExpressionParser& parser);
    ~Deeper() { --parser_.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;

   private:
    ExpressionParser& parser_;
  };

 private:
  ExpressionPtr parse_either();
  ExpressionPtr parse_both();
  ExpressionPtr parse_not();
  ExpressionPtr parse_compare();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concat();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_unary(bool with_filters);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_postfix(ExpressionPtr value);
  ExpressionPtr parse_subscript(ExpressionPtr value);
  ExpressionPtr parse_call(ExpressionPtr value);
  ExpressionPtr parse_filters(ExpressionPtr value);
  ExpressionPtr parse_test(ExpressionPtr value);
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  bool ends_tuple() const;

  std::vector<Lexeme> lexemes_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace longreach::data::jinja
