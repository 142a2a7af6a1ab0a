// What the kernels of selection take: plain pointers, no torch. selection.h has the meaning.
#pragma once
#include <cstdint>

namespace longreach::selection {

// One row of the lists: where its scores lie among all rows, and which blocks it may keep.
struct Row {
  int64_t candidates;  // blocks 0 .. candidates - 1
  int64_t forced_first, forced_latest;
  int64_t top_k;  // forced ones included
};

struct Choice {
  const float* scores;  // [lists, rows, blocks], rows contiguous
  int32_t* indices;     // [lists, rows, blocks]: written whole, ascending, -1 at the end
  int64_t lists, row_count, blocks;
  const Row* rows;  // [row_count]
  bool has_threshold, has_mass;
  float threshold;
  double mass;
};

// Returns the longest row, or -1 when a candidate's score is NaN.
int64_t choose_cpu(const Choice& choice);

}  // namespace longreach::selection
