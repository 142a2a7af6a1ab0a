// Matching. The pattern is a graph of nodes (split_regex_parser.h); since only single characters repeat
// without bound, the recursion is never deeper than the graph is long, whatever the text.
#include "data/tokenizers/split_regex.h"

#include <utility>

#include "data/tokenizers/split_regex_parser.h"

namespace longreach::data {

void CharSet::add_range(char32_t first, char32_t last) { ranges_.emplace_back(first, last); }

void CharSet::add_class(CharClass kind) { classes_ |= 1 << static_cast<int>(kind); }

void CharSet::add_all_but_class(CharClass kind) {
  classes_ |= ((1 << kNumCharClasses) - 1) & ~(1 << static_cast<int>(kind));
}

bool CharSet::contains(char32_t code) const {
  bool found = classes_ >> static_cast<int>(char_class(code)) & 1;
  if (space_ || non_space_) found = found || (is_space(code) ? space_ : non_space_);
  for (size_t i = 0; i < ranges_.size() && !found; ++i)
    found = code >= ranges_[i].first && code <= ranges_[i].second;
  return found != negated_;
}

void CharSet::finish() {
  ascii_ = {};
  for (char32_t code = 0; code < 0x80; ++code)
    if (contains(code)) ascii_[code >> 6] |= uint64_t{1} << (code & 63);
}

SplitRegex::SplitRegex(std::string_view pattern) {
  RegexProgram program = parse_regex(pattern);
  nodes_ = std::move(program.nodes);
  sets_ = std::move(program.sets);
  start_ = program.start;
}

bool SplitRegex::can_start(int node, std::string_view text, size_t at) const {
  const Node& n = nodes_[node];
  if (n.may_be_empty) return true;
  if (at == text.size()) return false;
  const auto byte = static_cast<unsigned char>(text[at]);
  return byte >= 0x80 || (n.first[byte >> 6] >> (byte & 63) & 1);
}

size_t SplitRegex::match(std::string_view text, size_t at) const {
  return can_start(start_, text, at) ? run(start_, text, at) : kNoMatch;
}

// Takes as many characters as it may; where the rest fails, gives them back one by one. `go_on`: nothing to
// give back, the caller goes on at the position returned.
size_t SplitRegex::run_set(const Node& node, std::string_view text, size_t at, bool& go_on) const {
  const CharSet& set = sets_[node.set];
  int count = 0;
  size_t end = at;
  while (count < node.max && end < text.size()) {
    const size_t length = set.match(text, end);
    if (length == 0) break;
    end += length;
    count += node.max != kUnbounded || count < node.min;  // beyond min only `end` matters
  }
  go_on = false;
  if (count < node.min) return kNoMatch;
  size_t shortest = at;
  for (int i = 0; i < node.min; ++i) shortest += decode_char(text, shortest).length;
  if (node.possessive || end == shortest) {
    go_on = true;
    return end;
  }
  for (;; end = previous_char(text, end)) {
    const size_t result = can_start(node.next, text, end) ? run(node.next, text, end) : kNoMatch;
    if (result != kNoMatch || end == shortest) return result;
  }
}

size_t SplitRegex::run(int node, std::string_view text, size_t at) const {
  for (;;) {
    const Node& n = nodes_[node];
    switch (n.kind) {
      case Node::Kind::accept:
        return at;
      case Node::Kind::set: {
        bool go_on = false;
        at = run_set(n, text, at, go_on);
        if (!go_on) return at;
        break;
      }
      case Node::Kind::look:
        if ((run(n.alternatives[0], text, at) == kNoMatch) != n.negated) return kNoMatch;
        break;
      case Node::Kind::choice:
        for (const int alternative : n.alternatives) {
          if (!can_start(alternative, text, at)) continue;
          const size_t end = run(alternative, text, at);
          if (end != kNoMatch) return end;
        }
        return kNoMatch;
    }
    node = n.next;
  }
}

}  // namespace longreach::data
