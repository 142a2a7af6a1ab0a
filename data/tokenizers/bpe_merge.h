// Byte-pair encoding of one word: the cheapest mergeable pair, leftmost among equals, is merged until none is
// left.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "data/tokenizers/tokenizer.h"

namespace longreach::data {

// A stretch of the word: bytes [begin, begin + length), linked to its neighbours. length 0: merged away.
struct MergeSymbol {
  int32_t previous = -1, next = -1;
  uint32_t begin = 0, length = 0;
  Token id = -1;        // -1: not in the vocabulary
  bool frozen = false;  // never merges
};

struct PairMerge {
  uint32_t rank = 0;  // lower goes first
  Token id = -1;      // of the merged symbol
};

struct MergeCandidate {
  uint32_t rank = 0;
  int32_t left = 0;
  uint32_t length = 0;  // of both together; tells a candidate whose parts have changed
  Token id = -1;
};

// What encoding needs again and again: buffers, and the words met before.
struct BpeScratch {
  std::vector<MergeSymbol> symbols;
  std::vector<MergeCandidate> heap;

  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view key) const { return std::hash<std::string_view>{}(key); }
  };
  std::unordered_map<std::string, std::vector<Token>, Hash, std::equal_to<>> words;
  static constexpr size_t kMaxWords = 1 << 16, kMaxWordBytes = 64, kMaxKeptSymbols = 1 << 16;
};

// Lends each caller a scratch of its own, so that encode() is const, safe from several threads and keeps its
// words.
class BpeScratchPool {
 public:
  std::unique_ptr<BpeScratch> take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_unique<BpeScratch>();
    std::unique_ptr<BpeScratch> scratch = std::move(free_.back());
    free_.pop_back();
    return scratch;
  }
  void give_back(std::unique_ptr<BpeScratch> scratch) {
    if (scratch->symbols.capacity() > BpeScratch::kMaxKeptSymbols) scratch->symbols = {};
    if (scratch->heap.capacity() > BpeScratch::kMaxKeptSymbols) scratch->heap = {};
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(scratch));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<BpeScratch>> free_;
};

// A scratch for the length of a scope.
class BorrowedScratch {
 public:
  explicit BorrowedScratch(BpeScratchPool& pool) : pool_(pool), scratch_(pool.take()) {}
  ~BorrowedScratch() { pool_.give_back(std::move(scratch_)); }
  BorrowedScratch(const BorrowedScratch&) = delete;
  BorrowedScratch& operator=(const BorrowedScratch&) = delete;
  BpeScratch& operator*() { return *scratch_; }

 private:
  BpeScratchPool& pool_;
  std::unique_ptr<BpeScratch> scratch_;
};

// Appends the tokens of the word, from the words met before where it can. encode(word, scratch, out) does the
// work.
template <class Encode>
void encode_cached(std::string_view word, BpeScratch& scratch, std::vector<Token>& out,
                   const Encode& encode) {
  if (word.size() > BpeScratch::kMaxWordBytes) {
    encode(word, scratch, out);
    return;
  }
  if (const auto known = scratch.words.find(word); known != scratch.words.end()) {
    out.insert(out.end(), known->second.begin(), known->second.end());
    return;
  }
  const size_t before = out.size();
  encode(word, scratch, out);
  if (scratch.words.size() >= BpeScratch::kMaxWords) scratch.words.clear();
  scratch.words.emplace(word, std::vector<Token>(out.begin() + static_cast<int64_t>(before), out.end()));
}

// Chains symbols in the order they stand.
inline void link_symbols(std::vector<MergeSymbol>& symbols) {
  const auto count = static_cast<int32_t>(symbols.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols[i].previous = i - 1;
    symbols[i].next = i + 1 < count ? i + 1 : -1;
  }
}

// lookup(left, right) -> std::optional<PairMerge>. The symbols left over have length > 0. O(n log n).
template <class Lookup>
void merge_symbols(BpeScratch& scratch, const Lookup& lookup) {
  std::vector<MergeSymbol>& symbols = scratch.symbols;
  std::vector<MergeCandidate>& heap = scratch.heap;
  const auto later = [](const MergeCandidate& a, const MergeCandidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  };
  const auto consider = [&](int32_t left, int32_t right) {
    if (left < 0 || right < 0 || symbols[left].frozen || symbols[right].frozen) return;
    const std::optional<PairMerge> merge = lookup(symbols[left], symbols[right]);
    if (!merge) return;
    heap.push_back({merge->rank, left, symbols[left].length + symbols[right].length, merge->id});
    std::push_heap(heap.begin(), heap.end(), later);
  };
  link_symbols(symbols);
  heap.clear();
  for (size_t i = 1; i < symbols.size(); ++i) consider(static_cast<int32_t>(i) - 1, static_cast<int32_t>(i));
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const MergeCandidate best = heap.back();
    heap.pop_back();
    MergeSymbol& left = symbols[best.left];
    if (left.length == 0 || left.next < 0 || left.length + symbols[left.next].length != best.length) continue;
    MergeSymbol& right = symbols[left.next];
    left.length = best.length;
    left.id = best.id;
    left.next = right.next;
    right.length = 0;
    if (left.next >= 0) symbols[left.next].previous = best.left;
    consider(left.previous, best.left);
    consider(best.left, left.next);
  }
}

}  // namespace longreach::data
