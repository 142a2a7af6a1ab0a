// What the kernels of selection take: plain pointers, no torch. selection.h has the meaning.
#pragma once
#include <cstdint>
#include <vector>

#include "layers/ops/document.h"
#include "layers/ops/dtype.h"
#include "layers/ops/strided.h"

namespace longreach::selection {

// One row of the lists: which blocks it may and must keep, and which windows it scores.
struct Row {
  int64_t candidates;  // blocks 0 .. candidates - 1
  int64_t forced_first, forced_latest;
  int64_t top_k;    // forced ones included
  int64_t windows;  // windows 0 .. windows - 1 of its document
};

struct Limits {
  bool has_threshold, has_mass;
  double threshold, mass;
};

// The lists of consecutive rows of [lists of all batch entries, row_count], end to end.
struct Piece {
  int64_t first, rows;
  std::vector<int32_t> blocks;
};

// Lists of unequal length, as they are found: no row takes more memory than it has entries.
struct Lists {
  std::vector<Piece> pieces;
  std::vector<int32_t> counts;  // of every row
  bool nan = false;             // a candidate's score is no number: the lists mean nothing
  int64_t longest() const;
};

// lists x row_count rows of scores [.., blocks].
template <class Score>
struct Choice {
  const Score* scores;
  int64_t lists, row_count, blocks;
  const Row* rows;  // [row_count]
  Limits limits;
};

Lists choose_cpu(const Choice<float>& choice);
Lists choose_cpu(const Choice<double>& choice);

// indices [lists, row_count, size]: each row's list, then -1. size is at least the longest.
void write_cpu(const Lists& lists, int64_t size, int32_t* indices);

enum class PoolKind : int32_t { mean, max, min };

struct Pooling {
  DType dtype;
  int64_t batches, heads, size;  // size: elements of a head
  int64_t width, stride;
  const PackedDocument* documents;          // their keys and windows
  int64_t document_count, tokens, windows;  // of one batch entry
  const PoolKind* pools;
  int64_t pool_count, picking;  // how many of the pools pick a token (max, min)
  Strided x;                    // the tensor that is pooled, or its gradient
  Strided pooled;               // [batches, windows, heads, pool_count size], or its gradient
  int32_t* picked;              // [batches, windows, heads, picking, size]: place of the token in its window
};

void pool_cpu(const Pooling& pooling);           // x -> pooled, picked
void pool_backward_cpu(const Pooling& pooling);  // pooled, picked -> x, written whole

enum class VoteKind : int32_t { mean, sum, max };

struct Select {
  DType dtype;
  int64_t batches, row_count, key_count, heads, key_heads, lists, size;
  Strided q;                        // [batches, row_count, heads, size]
  Strided k;                        // [batches, key_count, key_heads, size]
  const PackedDocument* documents;  // their rows and windows
  int64_t document_count;
  const Row* rows;  // [row_count]
  float scale;
  bool softmax;
  VoteKind vote;
  int64_t width, stride, key_block;
  Limits limits;
  float* scores;  // null, or [batches, lists, row_count, blocks]: written whole
  int64_t blocks;
};

Lists select_cpu(const Select& select);

}  // namespace longreach::selection
