// Parameter structs of the CUDA merge kernels: what plan.cpp fills in and join.cuh reads. No CUDA header.
#pragma once
#include <cstdint>

#include "layers/ops/merge/kernels.h"

namespace longreach::merge_kernels {

inline constexpr int kJoinThreads = 256, kJoinRows = kJoinThreads / 32;  // of a block; a warp has a row

struct CudaMerge {
  const Part* parts;  // on the device
  Part result;
  int64_t rows, heads, tokens;
  int32_t part_count, dim;
  int32_t quads;  // rows of all o begin on multiples of 4 elements
};

struct CudaMergeGradient {
  CudaMerge forward;
  Part grad;
  const Part* grads;  // on the device
};

}  // namespace longreach::merge_kernels
