// A recursive-descent parser into a tree, then the tree linked into a graph from the end backwards, so that
// every node knows what follows it and what its first byte may be.
#include "data/tokenizers/split_regex_parser.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "core/error.h"

namespace longreach::data {
namespace {

using Node = SplitRegex::Node;
constexpr int kMaxDepth = 32;         // of groups
constexpr size_t kMaxNodes = 4096;    // bounds the recursion of the matcher
constexpr int kMaxGroupRepeats = 16;  // a repeated group is unrolled

struct Item;
using Sequence = std::vector<Item>;

struct Item {
  Node::Kind kind = Node::Kind::set;
  int set = -1;
  bool negated = false;                // lookahead
  std::vector<Sequence> alternatives;  // choice and look
  int min = 1, max = 1;
  bool possessive = false;
};

class Parser {
 public:
  explicit Parser(std::string_view pattern) : pattern_(pattern) {}

  RegexProgram parse() {
    const std::vector<Sequence> alternatives = parse_alternatives(0, false);
    if (!done()) fail("an unmatched `)`");
    const int accept = add({.kind = Node::Kind::accept, .first = kAnyByte, .may_be_empty = true});
    program_.start = link_choice(alternatives, accept);
    return std::move(program_);
  }

 private:
  static constexpr std::array<uint64_t, 2> kAnyByte = {~uint64_t{0}, ~uint64_t{0}};

  [[noreturn]] void fail(const std::string& what) const {
    throw DataError(one_line(text("the regular expression `", pattern_.substr(0, 300), "` has ", what,
                                  " near character ", at_, ", which is not supported")));
  }
  bool done() const { return at_ >= pattern_.size(); }
  char peek(size_t ahead = 0) const { return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0'; }
  bool take(std::string_view what) {
    if (pattern_.substr(std::min(at_, pattern_.size()), what.size()) != what) return false;
    at_ += what.size();
    return true;
  }

  std::vector<Sequence> parse_alternatives(int depth, bool ignore_case) {
    if (depth > kMaxDepth) fail("groups nested too deep");
    std::vector<Sequence> alternatives(1);
    while (!done() && peek() != ')') {
      if (take("|")) {
        alternatives.emplace_back();
        continue;
      }
      alternatives.back().push_back(parse_item(depth, ignore_case));
      if (++num_items_ > kMaxNodes) fail("too many parts");
    }
    return alternatives;
  }

  Item parse_item(int depth, bool ignore_case) {
    Item item;
    if (take("(")) {
      item.kind = Node::Kind::choice;
      if (take("?:")) {
      } else if (take("?i:")) {
        ignore_case = true;
      } else if (take("?!") || take("?=")) {
        item.kind = Node::Kind::look;
        item.negated = pattern_[at_ - 1] == '!';
      } else if (peek() == '?' || peek() == '*') {
        fail("a group of kind `(" + std::string(pattern_.substr(at_, 2)) + "`");
      }
      item.alternatives = parse_alternatives(depth + 1, ignore_case);
      if (!take(")")) fail("a group that does not end");
    } else {
      CharSet set;
      parse_set(set, ignore_case);
      set.finish();
      item.set = static_cast<int>(program_.sets.size());
      program_.sets.push_back(std::move(set));
    }
    parse_quantifier(item);
    return item;
  }

  void parse_quantifier(Item& item) {
    if (take("?")) {
      item.min = 0;
    } else if (take("*")) {
      item.min = 0;
      item.max = kUnbounded;
    } else if (take("+")) {
      item.max = kUnbounded;
    } else if (peek() == '{') {
      parse_bounds(item);
      if (peek() == '+')
        fail("`+` after `}`");  // Oniguruma reads it as a second quantifier, others as possessive
    } else {
      return;
    }
    if (peek() == '?') fail("a lazy quantifier");
    item.possessive = take("+");
    if (std::string_view("?*+{").find(peek()) != std::string_view::npos && !done())
      fail("a quantifier of a quantifier");
    if (item.kind == Node::Kind::look) fail("a repeated lookahead");
    if (item.kind == Node::Kind::choice && (item.possessive || item.max > kMaxGroupRepeats))
      fail("a group repeated without bound");
  }

  void parse_bounds(Item& item) {
    ++at_;
    const std::optional<int> min = parse_number();
    item.min = min.value_or(0);
    item.max = item.min;
    if (take(",")) {
      const std::optional<int> max = parse_number();
      if (!min && !max) fail("a brace without numbers");
      item.max = max.value_or(kUnbounded);
    } else if (!min) {
      fail("a brace without numbers");
    }
    if (!take("}") || item.max < item.min) fail("a malformed {m,n}");
  }

  std::optional<int> parse_number() {
    std::optional<int> number;
    while (peek() >= '0' && peek() <= '9') {
      number = number.value_or(0) * 10 + (pattern_[at_++] - '0');
      if (*number > 1000) fail("a repeat above 1000");
    }
    return number;
  }

  // One character, an escape, or [...].
  void parse_set(CharSet& set, bool ignore_case) {
    if (take("[")) {
      if (take("^")) set.negate();
      bool first = true;
      while (first || !take("]")) {
        if (done()) fail("a set that does not end");
        if (peek() == '[' || (peek() == '&' && peek(1) == '&')) fail("a set inside a set");
        if (first && peek() == ']') fail("`]` first in a set");
        first = false;
        parse_member(set, ignore_case);
      }
      return;
    }
    if (std::string_view("^$.*+?{").find(peek()) != std::string_view::npos)
      fail(std::string("`") + peek() + "`");
    if (const std::optional<char32_t> code = parse_char(set)) add_char(set, *code, *code, ignore_case);
  }

  void parse_member(CharSet& set, bool ignore_case) {
    const std::optional<char32_t> first = parse_char(set);
    if (!first) return;
    char32_t last = *first;
    if (peek() == '-' && peek(1) != ']' && at_ + 1 < pattern_.size()) {
      ++at_;
      const std::optional<char32_t> end = parse_char(set);
      if (!end || *end < *first) fail("a malformed range");
      last = *end;
    }
    add_char(set, *first, last, ignore_case);
  }

  void add_char(CharSet& set, char32_t first, char32_t last, bool ignore_case) {
    set.add_range(first, last);
    if (!ignore_case) return;
    if (last >= 0x80) fail("a character beyond ASCII under (?i:");
    for (char32_t code = first; code <= last; ++code) {
      const char32_t lower = code | 0x20;
      if (lower < 'a' || lower > 'z') continue;
      set.add_range(code ^ 0x20, code ^ 0x20);
      // The two characters beyond ASCII whose simple case folding is an ASCII letter.
      if (lower == 's') set.add_range(0x17F, 0x17F);
      if (lower == 'k') set.add_range(0x212A, 0x212A);
    }
  }

  // A literal character (returned), or an escape that stands for a class (added to the set).
  std::optional<char32_t> parse_char(CharSet& set) {
    if (peek() != '\\') {
      const DecodedChar c = decode_char(pattern_, at_);
      at_ += c.length;
      return c.code;
    }
    ++at_;
    if (done()) fail("a `\\` at its end");
    const char escape = pattern_[at_++];
    switch (escape) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case 'f':
        return '\f';
      case 'v':
        return '\v';
      case 's':
        set.add_space();
        return std::nullopt;
      case 'S':
        set.add_non_space();
        return std::nullopt;
      case 'p':
      case 'P':
        parse_property(set, escape == 'P');
        return std::nullopt;
      default:
        break;
    }
    const bool alphanumeric =
        (escape >= '0' && escape <= '9') || ((escape | 0x20) >= 'a' && (escape | 0x20) <= 'z');
    if (alphanumeric || static_cast<unsigned char>(escape) >= 0x80) fail(std::string("`\\") + escape + "`");
    return escape;
  }

  void parse_property(CharSet& set, bool all_but) {
    constexpr std::string_view kNames = "CLMNPZS";  // in the order of CharClass
    std::string_view name;
    if (take("{")) {
      const size_t end = pattern_.find('}', at_);
      if (end == std::string_view::npos) fail("a `\\p{` that does not end");
      name = pattern_.substr(at_, end - at_);
      at_ = end + 1;
    }
    const size_t kind = name.size() == 1 ? kNames.find(name[0]) : std::string_view::npos;
    if (kind == std::string_view::npos) fail("the property `" + std::string(name) + "`");
    if (all_but)
      set.add_all_but_class(static_cast<CharClass>(kind));
    else
      set.add_class(static_cast<CharClass>(kind));
  }

  int add(Node node) {
    if (program_.nodes.size() >= kMaxNodes) fail("too many parts");
    program_.nodes.push_back(std::move(node));
    return static_cast<int>(program_.nodes.size()) - 1;
  }

  int link_sequence(const Sequence& sequence, int next) {
    for (size_t i = sequence.size(); i-- > 0;) next = link_item(sequence[i], next);
    return next;
  }

  int link_choice(const std::vector<Sequence>& alternatives, int next) {
    if (alternatives.size() == 1) return link_sequence(alternatives[0], next);
    Node choice{.kind = Node::Kind::choice};
    for (const Sequence& alternative : alternatives) {
      choice.alternatives.push_back(link_sequence(alternative, next));
      include_first(choice, choice.alternatives.back());
    }
    return add(std::move(choice));
  }

  int link_item(const Item& item, int next) {
    if (item.kind == Node::Kind::set) {
      Node node{.kind = Node::Kind::set, .next = next, .set = item.set, .min = item.min, .max = item.max};
      node.possessive = item.possessive;
      node.first = program_.sets[item.set].ascii();
      if (item.min == 0) include_first(node, next);
      return add(std::move(node));
    }
    if (item.kind == Node::Kind::look) {
      const int accept = add({.kind = Node::Kind::accept, .first = kAnyByte, .may_be_empty = true});
      const int inside = link_choice(item.alternatives, accept);
      return add({.kind = Node::Kind::look,
                  .next = next,
                  .negated = item.negated,
                  .alternatives = {inside},
                  .first = kAnyByte,
                  .may_be_empty = true});
    }
    const int after = next;
    for (int i = 0; i < item.max; ++i) {
      next = link_choice(item.alternatives, next);
      if (i >= item.max - item.min) continue;
      Node optional{.kind = Node::Kind::choice,
                    .alternatives = {next, after}};  // greedy: taking it comes first
      include_first(optional, next);
      include_first(optional, after);
      next = add(std::move(optional));
    }
    return next;
  }

  void include_first(Node& node, int other) const {
    const Node& from = program_.nodes[other];
    for (int i = 0; i < 2; ++i) node.first[i] |= from.first[i];
    node.may_be_empty = node.may_be_empty || from.may_be_empty;
  }

  std::string_view pattern_;
  size_t at_ = 0, num_items_ = 0;
  RegexProgram program_;
};

}  // namespace

RegexProgram parse_regex(std::string_view pattern) { return Parser(pattern).parse(); }

}  // namespace longreach::data
