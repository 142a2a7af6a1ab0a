// What the sm_90a kernels of dense attention take: plain data that kernels and launch plans share. One
// document a batch entry, no window, no sinks, no explicit intervals; everything else keeps the kernels of
// params.h.
#pragma once
#include "layers/ops/cuda/launch.h"
#include "layers/ops/interval_attention/cuda/params.h"

namespace longreach::interval {

// A producer warpgroup and two consumer warpgroups of 64 rows each.
inline constexpr int kDenseThreads = 384, kDenseConsumers = 2, kDenseRows = 64 * kDenseConsumers;

// Maps of rows [batch, head, token, element] have boxes of 64 elements of one head and batch entry.
inline constexpr int kDenseColumns = 64;

struct DenseProblem {
  int32_t batches, queries, keys, heads, key_heads, value_heads;
  int32_t tile_count;  // tiles of kDenseRows rows: of queries, or of keys
  int32_t causal;      // 1: keys up to the query's position, both counted from the end
  float scale_log2;
};

struct DenseForward {
  cuda::EncodedTensorMap q, k, v, o;  // boxes of 64 rows for q and o, of kDenseKeys for k and v
  DenseProblem problem;
  float* lse;  // [batches, heads, queries]
};

inline constexpr int kDenseKeys = 128;  // keys a stage of the forward pass

constexpr int dense_forward_stages(int size) { return size <= 64 ? 4 : 2; }

constexpr int dense_forward_shared(int size) {
  const int tiles = kDenseRows + dense_forward_stages(size) * 2 * kDenseKeys;
  return tiles * size * 2 + (1 + 4 * dense_forward_stages(size)) * 8;
}

struct DenseBackward {
  cuda::EncodedTensorMap q, k, v, d_o;  // boxes of 64 rows where a block holds them, else of a stage's
  cuda::EncodedTensorMap dq, dk, dv;    // boxes of 64 rows; each kernel has its own
  cuda::EncodedTensorMap term_rows;  // of key_gradient: all CudaTerms as one row of fp32, boxes of a stage's
  DenseProblem problem;
  float scale;
  const CudaTerms* terms;  // [batches, heads, queries]
};

// Rows a stage: keys of query_gradient, queries of key_gradient. As many as the registers allow.
constexpr int dense_query_gradient_columns(int size) { return size <= 64 ? 128 : 64; }
inline constexpr int kDenseKeyGradientColumns = 64;

constexpr int dense_backward_stages(int size) { return size <= 64 ? 4 : 3; }

// Shared memory of stages of `columns` rows, with `terms` bytes each.
constexpr int dense_backward_shared(int size, int columns, int terms) {
  const int stages = dense_backward_stages(size);
  return (kDenseRows + stages * columns) * 2 * size * 2 + stages * terms + (1 + 2 * stages) * 8;
}

inline constexpr int kDenseTermBytes = kDenseKeyGradientColumns * static_cast<int>(sizeof(CudaTerms));

constexpr int dense_query_gradient_shared(int size) {
  return dense_backward_shared(size, dense_query_gradient_columns(size), 0);
}

constexpr int dense_key_gradient_shared(int size) {
  return dense_backward_shared(size, kDenseKeyGradientColumns, kDenseTermBytes);
}

}  // namespace longreach::interval
