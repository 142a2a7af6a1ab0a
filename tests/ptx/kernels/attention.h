// Parameters and faults of the interpreter's test kernels, for kernels and tests.
#pragma once
#include <cstdint>

namespace longreach::ptx {

struct AttentionParameters {
  const uint16_t *q, *k, *v;  // [length, 64] bf16
  uint16_t* o;
  int length;
  float scale_log2;  // log2(e) / sqrt(64)
};

struct SumParameters {
  const float* x;  // [rows, 64]
  float* sums;     // [64]
};

enum class Fault {
  none,
  no_swizzle,
  out_of_bounds,
  missing_wait,
  missing_barrier,
  missing_last_barrier,
  missing_warp_sync,
  missing_shuffle,
  not_atomic
};

}  // namespace longreach::ptx
