// A set of strings, each with a number, searched by walking a text byte by byte: special tokens, user-defined
// pieces, the pieces of a unigram model.
#pragma once
#include <cstdint>
#include <string_view>

#include "data/tokenizers/flat_map.h"

namespace longreach::data {

class ByteTrie {
 public:
  static constexpr int64_t kRoot = 0, kNone = -1;

  // A later value for the same string replaces the earlier. Empty strings are ignored.
  void insert(std::string_view key, int64_t value) {
    if (key.empty()) return;
    starts_[static_cast<unsigned char>(key[0])] = true;
    int64_t node = kRoot;
    for (const char byte : key) {
      int64_t next = step(node, byte);
      if (next == kNone) {
        next = ++num_nodes_;
        edges_.insert_or_assign(edge(node, byte), static_cast<uint64_t>(next));
      }
      node = next;
    }
    values_.insert_or_assign(static_cast<uint64_t>(node), static_cast<uint64_t>(value));
  }

  bool empty() const { return num_nodes_ == 0; }
  bool starts_with(char byte) const { return starts_[static_cast<unsigned char>(byte)]; }

  // The node below `node`, or kNone.
  int64_t step(int64_t node, char byte) const { return static_cast<int64_t>(edges_.find(edge(node, byte))); }

  // The number of the string that ends at the node, or kNone.
  int64_t value(int64_t node) const {
    return static_cast<int64_t>(values_.find(static_cast<uint64_t>(node)));
  }

  struct Match {
    size_t length = 0;  // 0: nothing matches
    int64_t value = kNone;
  };
  // The longest string of the set that stands at `at` and whose number passes `accept(value)`.
  template <class Accept>
  Match longest(std::string_view text, size_t at, const Accept& accept) const {
    Match best;
    if (at >= text.size() || !starts_with(text[at])) return best;
    int64_t node = kRoot;
    for (size_t end = at; end < text.size();) {
      node = step(node, text[end++]);
      if (node == kNone) break;
      const int64_t found = value(node);
      if (found != kNone && accept(found)) best = {end - at, found};
    }
    return best;
  }

 private:
  static uint64_t edge(int64_t node, char byte) {
    return static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(byte);
  }

  FlatMap edges_, values_;
  bool starts_[256] = {};
  int64_t num_nodes_ = 0;
};

}  // namespace longreach::data
