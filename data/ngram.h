// Byte n-gram baselines: what counting alone achieves, in bits per byte, on the very split that a model is
// trained and validated on.
//
// Interpolated Witten-Bell smoothing (Witten and Bell 1991; Chen and Goodman 1998, section 2.6): with c(h, w)
// the count of byte w after context h, c(h) their sum and d(h) the number of different bytes seen after h,
//   p(w | h) = (c(h, w) + d(h) p(w | h')) / (c(h) + d(h)),   h' = h without its first byte,
// down to the empty context, below which lies 1/256.
#pragma once
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "data/loader.h"

namespace longreach::data {

class ByteNgram {
 public:
  // `order`: bytes of context, 0 to 6. Throws DataError.
  explicit ByteNgram(int order);
  // Counts text; contexts do not reach across the beginning of a document.
  void add(std::string_view bytes, bool begins_document);
  // Bits that coding `bytes` costs, with contexts as in add().
  double bits(std::string_view bytes, bool begins_document);

 private:
  // For a context: the sum of counts and the number of different followers; for context plus byte: its count.
  struct Entry {
    uint64_t key = 0;  // 0: free
    uint64_t count = 0;
    uint32_t followers = 0;
  };
  Entry& slot(uint64_t key);
  const Entry* find(uint64_t key) const;
  void grow();

  int order_;
  // Open addressing; memory grows with the number of different contexts, not with the text.
  std::vector<Entry> table_;
  size_t used_ = 0;
  uint64_t history_ = 0;  // the newest bytes, newest lowest
  int history_length_ = 0;
};

// Counts the training text of `corpus` and returns bits per byte of its held-out text. progress: called now
// and then with the bytes read so far. Throws DataError when there is no held-out text.
double ngram_bits_per_byte(
    const Corpus& corpus, int order, const std::function<void(int64_t bytes)>& progress = [](int64_t) {});

}  // namespace longreach::data
