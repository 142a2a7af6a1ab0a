// Text and tags.
#include "data/chat_template/parser.h"

#include <algorithm>
#include <initializer_list>

#include "data/chat_template/expression_parser.h"

namespace longreach::data::jinja {
namespace {

using Kind = Statement::Kind;

class Parser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Block parse() {
    Block block = parse_block({});
    return block;
  }

 private:
  using Names = std::initializer_list<std::string_view>;

  // Up to a tag of one of the names, which is left to be read behind its `{%`; without names to the end.
  Block parse_block(Names ends) {
    const Deeper deeper(*this);
    Block block;
    for (;;) {
      const Lexeme::Kind kind = now().kind;
      if (kind == Lexeme::Kind::text) {
        block.push_back(statement(Kind::text));
        block.back()->text = take().value;
      } else if (kind == Lexeme::Kind::print) {
        take();
        block.push_back(statement(Kind::print));
        block.back()->expression = parse_tuple();
        if (now().kind != Lexeme::Kind::print_end) fail("expected `}}`, found ", shown(now()));
        take();
      } else if (kind == Lexeme::Kind::block) {
        take();
        if (std::any_of(ends.begin(), ends.end(), [&](auto name) { return now().is_name(name); }))
          return block;
        if (auto one = parse_tag()) block.push_back(std::move(one));
      } else {
        if (ends.size() > 0) fail("the template ends where `", *(ends.end() - 1), "` is expected");
        return block;
      }
    }
  }

  std::unique_ptr<Statement> statement(Kind kind) const {
    auto made = std::make_unique<Statement>();
    made->kind = kind;
    made->line = now().line;
    return made;
  }
  void end_tag() {
    if (now().kind != Lexeme::Kind::block_end) fail("expected `%}`, found ", shown(now()));
    take();
  }

  std::unique_ptr<Statement> parse_tag() {
    const std::string tag = now().kind == Lexeme::Kind::name ? now().value : "";
    if (tag == "if") return parse_if();
    if (tag == "for") return parse_for();
    if (tag == "set") return parse_set();
    if (tag == "macro") return parse_macro();
    if (tag == "filter") return parse_filtered();
    if (tag == "generation") return parse_generation();
    if (tag != "break" && tag != "continue")
      fail("tag ", shown(now()),
           " is not known, expected if, for, set, macro, filter, break, continue or generation");
    if (loops_ == 0) fail("`", tag, "` outside of a loop");
    auto made = statement(tag == "break" ? Kind::stop : Kind::skip);
    take();
    end_tag();
    return made;
  }

  std::unique_ptr<Statement> parse_if() {
    const Deeper deeper(*this);
    auto made = statement(Kind::branch);
    take();  // if, or elif
    made->expression = parse_tuple(false);
    end_tag();
    made->body = parse_block({"elif", "else", "endif"});
    if (now().is_name("elif")) {
      made->otherwise.push_back(parse_if());
      return made;
    }
    if (skip_name("else")) {
      end_tag();
      made->otherwise = parse_block({"endif"});
    }
    take();
    end_tag();
    return made;
  }

  Target parse_target() {
    Target target;
    do {
      if (target.tuple && !(now().kind == Lexeme::Kind::name)) break;  // a comma at the end
      target.names.push_back(expect_name());
      for (const char* constant : {"true", "false", "none", "True", "False", "None"})
        if (target.names.back() == constant) fail("`", constant, "` cannot be given a value");
      if (now().is(",")) target.tuple = true;
    } while (skip(","));
    return target;
  }

  std::unique_ptr<Statement> parse_for() {
    auto made = statement(Kind::loop);
    take();
    const bool parentheses = skip("(");
    made->target = parse_target();
    if (parentheses) expect(")");
    if (!skip_name("in")) fail("expected `in`, found ", shown(now()));
    made->expression = parse_tuple(false);
    if (skip_name("if")) made->condition = parse_expression();
    if (now().is_name("recursive")) fail("a recursive loop is not supported");
    end_tag();
    ++loops_;
    made->body = parse_block({"else", "endfor"});
    --loops_;
    if (skip_name("else")) {
      end_tag();
      made->otherwise = parse_block({"endfor"});
    }
    take();
    end_tag();
    return made;
  }

  std::unique_ptr<Statement> parse_set() {
    auto made = statement(Kind::set);
    take();
    if (next().is(".")) {
      made->target.names.push_back(expect_name());
      take();
      made->target.attribute = expect_name();
    } else {
      made->target = parse_target();
    }
    if (skip("=")) {
      made->expression = parse_tuple();
      end_tag();
      return made;
    }
    if (made->target.tuple) fail("expected `=`, found ", shown(now()));
    made->kind = Kind::set_block;
    made->expression = parse_filters_of_block();
    end_tag();
    made->body = parse_closed("endset");
    return made;
  }

  // Filters that are applied to what a body has written.
  ExpressionPtr parse_filters_of_block() {
    auto written = make(Expression::Kind::constant);
    while (skip("|")) written = parse_filter(std::move(written));
    return written;
  }

  std::unique_ptr<Statement> parse_filtered() {
    auto made = statement(Kind::filtered);
    take();
    made->expression = parse_filter(make(Expression::Kind::constant));
    while (skip("|")) made->expression = parse_filter(std::move(made->expression));
    end_tag();
    made->body = parse_closed("endfilter");
    return made;
  }

  // Loops around do not reach into a body that is its own function.
  Block parse_closed(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    Block body = parse_block({end});
    loops_ = loops;
    take();
    end_tag();
    return body;
  }

  std::unique_ptr<Statement> parse_generation() {
    auto made = statement(Kind::generation);
    take();
    end_tag();
    made->body = parse_closed("endgeneration");
    return made;
  }

  std::unique_ptr<Statement> parse_macro() {
    auto made = statement(Kind::macro);
    take();
    made->macro = std::make_unique<MacroStatement>();
    MacroStatement& macro = *made->macro;
    macro.name = expect_name();
    expect("(");
    while (!skip(")")) {
      if (!macro.parameters.empty()) expect(",");
      macro.parameters.push_back({expect_name(), nullptr});
      if (skip("="))
        macro.parameters.back().fallback = parse_expression();
      else if (macro.parameters.size() > 1 && macro.parameters[macro.parameters.size() - 2].fallback)
        fail("a parameter without a default behind one with a default");
    }
    end_tag();
    macro.body = parse_closed("endmacro");
    return made;
  }

  int loops_ = 0;
};

}  // namespace

Block parse_template(std::string_view source) { return Parser(read_lexemes(source)).parse(); }

}  // namespace longreach::data::jinja
