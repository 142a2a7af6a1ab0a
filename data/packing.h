// How rows of a batch are cut out of a source, and how one is filled.
//
// A source is a circle of tokens. Plain text is cut into windows of seq_len; each epoch turns the circle by a
// random offset and visits the windows in a random order, so every token of the source is seen once an epoch
// (up to seq_len - 1 of them twice) and at a different place of the row each time. A window that holds
// several documents is several pieces. Fine-tuning sources (with a loss mask) are cut at document borders
// instead: as many whole documents as fit a row; a document longer than a row is cut every seq_len.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "data/loader.h"

namespace longreach::data {

// Tokens [begin, begin + length) of a source.
struct TokenRange {
  int64_t begin = 0, length = 0;
};

class RowPlan {
 public:
  RowPlan(const TokenSource& source, const LoaderOptions& options);
  // Rows that visit every token once.
  int64_t rows_per_epoch() const { return rows_; }
  // Row `index` of the endless random sequence given by `seed`: ranges whose lengths sum to at most seq_len.
  std::vector<TokenRange> random_row(uint64_t seed, uint64_t index) const;
  // Row `index` < rows_per_epoch() of the source in order.
  TokenRange row_in_order(int64_t index) const;

 private:
  int64_t tokens_, seq_len_, rows_;
  std::vector<int64_t> borders_;  // of rows made of whole documents; empty: windows
};

// Appends one row of seq_len tokens made of `ranges` to `batch`. With varlen a piece ends where its document
// ends: its positions begin at 0, cu_seqlens gets its end, and its last label is kIgnoreLabel if the next
// token belongs to another document. Without varlen positions count the row and labels cross borders. What
// the ranges leave empty is token 0 without labels, a piece of its own.
void append_row(const TokenSource& source, std::span<const TokenRange> ranges, const LoaderOptions& options,
                TokenBatch& batch);

// Which source sample number g comes from, and the how-manyth sample of that source it is. Within every block
// of samples each source has its exact share (rounded, with the remainder carried on), in random order.
class Mixture {
 public:
  struct Draw {
    size_t source = 0;
    uint64_t index = 0;
  };
  Mixture(std::vector<double> probabilities, uint64_t seed);
  Draw draw(uint64_t sample) const;

 private:
  std::vector<uint64_t> drawn_before(uint64_t samples) const;
  std::vector<double> probabilities_;
  size_t largest_;
  uint64_t seed_, block_;
};

}  // namespace longreach::data
