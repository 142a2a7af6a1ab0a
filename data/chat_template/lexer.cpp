// White space around tags: `-` takes all of it, a block's or a comment's end takes one line break
// (trim_blocks), and a block or a comment that begins a line takes the blanks before it (lstrip_blocks).
#include "data/chat_template/lexer.h"

#include <array>

#include "core/error.h"
#include "data/chat_template/characters.h"
#include "data/tokenizers/unicode_classes.h"

namespace longreach::data::jinja {
namespace {

constexpr std::array<std::string_view, 27> kSymbols{"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                    "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                    ">",  "<",  "=",  ".",  ":",  "|",  ",", ";", "!"};

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

// \r\n and \r are \n, and one at the very end is dropped.
std::string with_line_breaks(std::string_view source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') out += source[i];
    if (source[i] == '\r' && (i + 1 == source.size() || source[i + 1] != '\n')) out += '\n';
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(with_line_breaks(source)) {}

  std::vector<Lexeme> read() {
    check<DataError>(is_utf8(source_), "line 1: the template is not UTF-8");
    while (at_ < source_.size()) read_text();
    add(Lexeme::Kind::end, "");
    return std::move(out_);
  }

 private:
  template <class... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    throw DataError(one_line(text("line ", line_, ": ", parts...)));
  }
  void add(Lexeme::Kind kind, std::string value) { out_.push_back({kind, std::move(value), line_}); }
  bool here(std::string_view what) const {
    return std::string_view(source_).substr(at_, what.size()) == what;
  }
  void step(size_t count) {
    for (size_t i = 0; i < count; ++i) line_ += source_[at_ + i] == '\n';
    at_ += count;
  }

  size_t next_tag() const {
    for (size_t at = at_; (at = source_.find('{', at)) != std::string::npos; ++at)
      if (at + 1 < source_.size() && std::string_view("{%#").find(source_[at + 1]) != std::string_view::npos)
        return at;
    return source_.size();
  }

  void read_text() {
    const size_t tag = next_tag();
    std::string_view text = std::string_view(source_).substr(at_, tag - at_);
    const char kind = tag < source_.size() ? source_[tag + 1] : '\0';
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (kind != '\0' && sign == '-') {
      text = strip(text, Ends::right);
    } else if (kind != '\0' && kind != '{' && sign != '+') {
      const size_t line = text.rfind('\n') + 1;  // npos + 1 is 0
      const bool begins = line > 0 || begins_line_;
      if (begins && strip(text.substr(line), Ends::left).empty()) text = text.substr(0, line);
    }
    if (!text.empty()) add(Lexeme::Kind::text, std::string(text));
    step(tag - at_);
    if (kind == '\0') return;
    step(sign == '-' || sign == '+' ? 3 : 2);
    if (kind == '#')
      read_comment();
    else
      read_tag(kind == '{' ? Lexeme::Kind::print : Lexeme::Kind::block);
  }

  // Behind `%}`, `}}` or `#}` with the sign before it.
  void close(char sign, bool trims) {
    const size_t begin = at_;
    if (sign == '-') {
      const std::string_view rest = std::string_view(source_).substr(at_);
      step(rest.size() - strip(rest, Ends::left).size());
    } else if (trims && sign != '+' && here("\n")) {
      step(1);
    }
    begins_line_ = at_ > begin && source_[at_ - 1] == '\n';
  }

  void read_comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) fail("the comment that begins here does not end");
    const char sign = end > at_ ? source_[end - 1] : '\0';
    step(end + 2 - at_);
    close(sign, true);
  }

  void read_tag(Lexeme::Kind kind) {
    const bool block = kind == Lexeme::Kind::block;
    const std::string_view end = block ? "%}" : "}}";
    add(kind, "");
    for (open_.clear();;) {
      const size_t blanks = strip(std::string_view(source_).substr(at_), Ends::left).size();
      step(source_.size() - at_ - blanks);
      if (at_ == source_.size()) fail("the template ends inside of a tag");
      const char sign = source_[at_] == '-' || (block && source_[at_] == '+') ? source_[at_] : '\0';
      const size_t behind_sign = at_ + (sign == '\0' ? 0 : 1);
      if (open_.empty() && source_.compare(behind_sign, 2, end) == 0) {
        step(behind_sign + 2 - at_);
        add(block ? Lexeme::Kind::block_end : Lexeme::Kind::print_end, "");
        return close(sign, block);
      }
      read_lexeme();
    }
  }

  void read_lexeme() {
    const char first = source_[at_];
    if (is_letter(first)) {
      size_t end = at_;
      while (end < source_.size() && (is_letter(source_[end]) || is_digit(source_[end]))) ++end;
      take(Lexeme::Kind::name, end);
    } else if (is_digit(first)) {
      read_number();
    } else if (first == '\'' || first == '"') {
      read_string(first);
    } else {
      read_symbol();
    }
  }

  void take(Lexeme::Kind kind, size_t end) {
    add(kind, source_.substr(at_, end - at_));
    step(end - at_);
  }

  void read_number() {
    const auto digits = [&](size_t at) {
      while (at < source_.size() && is_digit(source_[at])) ++at;
      return at;
    };
    size_t end = digits(at_);
    bool real = false;
    if (end + 1 < source_.size() && source_[end] == '.' && is_digit(source_[end + 1])) {
      end = digits(end + 1);
      real = true;
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const bool sign = end + 1 < source_.size() && (source_[end + 1] == '-' || source_[end + 1] == '+');
      end = digits(end + (sign ? 2 : 1));
      real = true;
    }
    const bool odd =
        (end < source_.size() && is_letter(source_[end])) ||
        (!real && source_[at_] == '0' && end - at_ > 1 && source_.find_first_not_of('0', at_) < end);
    if (odd || end - at_ > 30 || !is_digit(source_[end - 1]))
      fail("a number in a form that is not supported");
    take(real ? Lexeme::Kind::real : Lexeme::Kind::integer, end);
  }

  void read_symbol() {
    for (const std::string_view symbol : kSymbols) {
      if (!here(symbol)) continue;
      if (symbol == "(" || symbol == "[" || symbol == "{")
        open_ += symbol == "(" ? ')' : symbol == "[" ? ']' : '}';
      if (symbol == ")" || symbol == "]" || symbol == "}") {
        if (open_.empty() || open_.back() != symbol[0]) fail("`", symbol, "` closes nothing");
        open_.pop_back();
      }
      return take(Lexeme::Kind::symbol, at_ + symbol.size());
    }
    fail("`", source_.substr(at_, char_size(source_, at_)), "` is no part of the language");
  }

  void read_string(char quote) {
    const int64_t begun = line_;
    std::string value;
    for (step(1); at_ < source_.size() && source_[at_] != quote;) {
      if (source_[at_] == '\\' && at_ + 1 < source_.size()) {
        read_escape(value);
      } else {
        value += source_[at_];
        step(1);
      }
    }
    if (at_ == source_.size()) fail("the string that begins in line ", begun, " does not end");
    step(1);
    add(Lexeme::Kind::string, value);
    out_.back().line = begun;
  }

  // Python's escapes; a character that is none keeps its backslash.
  void read_escape(std::string& value) {
    const char kind = source_[at_ + 1];
    step(2);
    if (const size_t plain = std::string_view("ntrabfv\\'\"").find(kind); plain != std::string_view::npos)
      value += "\n\t\r\a\b\f\v\\'\""[plain];
    else if (kind == 'x' || kind == 'u' || kind == 'U')
      append_utf8(value, read_code(kind == 'x' ? 2 : kind == 'u' ? 4 : 8, 16));
    else if (kind >= '0' && kind <= '7')
      fail("an octal escape in a string is not supported");
    else if (kind == 'N')
      fail("a character by its name in a string is not supported");
    else if (kind != '\n')
      value += {'\\', kind};
  }

  char32_t read_code(size_t digits, int base) {
    const std::string number = source_.substr(at_, digits);
    if (number.size() < digits || number.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
      fail("a broken escape in a string");
    const auto code = static_cast<char32_t>(std::stoul(number, nullptr, base));
    if (code >= kInvalidByte || (code >= 0xD800 && code < 0xE000))
      fail("an escape in a string is no character");
    step(digits);
    return code;
  }

  std::string source_, open_;  // open_: the brackets that must close
  size_t at_ = 0;
  int64_t line_ = 1;
  bool begins_line_ = true;  // the text that comes next begins a line
  std::vector<Lexeme> out_;
};

}  // namespace

std::vector<Lexeme> read_lexemes(std::string_view source) { return Lexer(source).read(); }

}  // namespace longreach::data::jinja
