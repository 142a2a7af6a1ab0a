// A chat template's source as tokens: Jinja's lexer with trim_blocks and lstrip_blocks, as transformers sets
// them.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace longreach::data::jinja {

struct Lexeme {
  // print and block: the beginning of {{ }} and {% %}.
  enum class Kind { text, print, print_end, block, block_end, name, string, integer, real, symbol, end };
  Kind kind = Kind::end;
  std::string value;  // a string's is unescaped
  int64_t line = 1;

  bool is(std::string_view symbol) const { return kind == Kind::symbol && value == symbol; }
  bool is_name(std::string_view name) const { return kind == Kind::name && value == name; }
};

// Throws DataError ("line 12: ...") for what Jinja does not read or what is not understood.
std::vector<Lexeme> read_lexemes(std::string_view source);

}  // namespace longreach::data::jinja
