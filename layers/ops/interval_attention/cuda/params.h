// What the CUDA kernels of interval attention take and how they cut their work: plain data that the kernels
// (nvcc) and the launch plans (any compiler) share, so that they cannot disagree. interval_attention.h has
// the equations, forward.cuh and backward.cuh the algorithms.
#pragma once
#include <cstdint>

#include "layers/ops/cuda/attention/params.h"

namespace longreach::interval {

using namespace cuda::attention;

// Which keys the rows of a tile see: all intervals lie in [begin, end), keys from last_lo to first_hi in
// every one of them, no key from visible_end on is seen. begin = end when all are empty.
struct CudaHull {
  int32_t begin, end, last_lo, first_hi, visible_end;
  int32_t unused[3];
};

struct CudaMask {
  int32_t causal, window, sinks;  // window 0: no limit
  int32_t batches, heads;         // of lo and hi, null or [batches, heads, queries]
  const int32_t *lo, *hi;
};

// The part that all kernels read.
struct CudaProblem {
  CudaRows q, k, v;
  CudaMask mask;
  const CudaTile* tiles;  // null: one document, tiles follow from the block's number
  int32_t tile_count;     // a head
  int32_t batches, queries, keys, heads, key_heads, value_heads;
  int32_t group;     // consecutive query heads with one key and one value head
  float scale_log2;  // forward: its absolute value and never 0; backward: as it is
  int32_t negate;    // forward: the scale is negative
};

struct CudaForward {
  CudaProblem problem;
  CudaRows o;
  float* lse;  // [batches, heads, queries]
  // Decoding: keys are dealt out to `splits` blocks; with more than one, o and lse are partial results with
  // the split as the outermost dimension (bytes and elements apart).
  int32_t splits;
  int64_t split_o, split_lse;
};

struct CudaBackward {
  CudaProblem problem;
  CudaRows d_o, dq, dk, dv;
  float scale;
  const CudaTerms* terms;  // [batches, heads, queries]
  const CudaHull* hulls;   // null, or [mask batches, mask heads, hull_count]: of the tiles of queries
  int32_t hull_count;
};

// Of tiles of `tile_rows` queries.
struct CudaHulls {
  CudaMask mask;
  const CudaTile* tiles;  // as in CudaProblem: tiles of queries
  int32_t tile_count, tile_rows, queries, keys;
  CudaHull* hulls;
};

// o and lse from `splits` partial results.
struct CudaMerge {
  const float *o, *lse;        // [splits, batches, heads, queries, row], [splits, batches, heads, queries]
  int64_t split_o, split_lse;  // elements
  int32_t splits, row, batches, heads, queries;
  CudaRows out;
  float* out_lse;
};

// The shapes fit two blocks into the shared memory of an A100 (164 KB) where head dims allow, never need more
// than 99 KB (sm_86, sm_89), and keep registers below 255 without spills.
constexpr TileShape forward_shape(int bytes, int qk, int v) {
  const int widest = qk > v ? qk : v;
  if (bytes == 4)
    return widest <= 64 ? TileShape{1, 4, 1, 32, 2} : TileShape{1, widest <= 128 ? 4 : 2, 1, 16, 2};
  if (widest <= 64) return {2, 4, 1, 64, 2};
  return {widest <= 128 ? 2 : 1, 4, 1, 32, 2};
}

// Decoding: 16 rows, keys shared out between the warps.
constexpr TileShape decode_shape(int bytes, int qk, int v) {
  const int widest = (qk > v ? qk : v) * bytes;
  if (widest <= 256) return {1, 1, 4, 64, 2};
  return {1, 1, 2, 32, widest <= 512 ? 2 : 1};
}

constexpr TileShape query_gradient_shape(int bytes, int qk, int v) {
  if (bytes == 4) return {1, qk <= 128 ? 4 : 2, 1, qk <= 64 ? 32 : 16, qk <= 128 ? 2 : 1};
  if (qk + v <= 128) return {2, 4, 1, 32, 2};
  return {1, 4, 1, qk + v <= 192 ? 64 : qk + v <= 320 ? 32 : 16, 2};
}

constexpr bool key_gradients_are_split(int bytes, int qk, int v) { return qk + v > (bytes == 4 ? 128 : 320); }

constexpr TileShape key_gradient_shape(int bytes, int qk, int v) {
  if (bytes == 4) return query_gradient_shape(bytes, qk, v);
  return {1, 4, 1, qk + v <= 128 ? 64 : qk + v <= 256 ? 32 : 16, 2};
}

constexpr int forward_shared(const TileShape& shape, int bytes, int qk, int v) {
  const int tiles = shape.rows() * qk * bytes + shape.stages * shape.columns * (qk + v) * bytes;
  const int staging = shape.rows() * shape.key_warps * v * 4;
  return larger(tiles, staging) + shape.rows() * shape.key_warps * 8;
}

constexpr int query_gradient_shared(const TileShape& shape, int bytes, int qk, int v) {
  const int tiles = (shape.rows() + shape.stages * shape.columns) * (qk + v) * bytes;
  return larger(tiles, shape.rows() * qk * 4) + shape.rows() * 8;
}

constexpr int key_gradient_shared(const TileShape& shape, KeyGradients parts, int bytes, int qk, int v) {
  const int held = parts == KeyGradients::kValues ? qk : qk + v;
  const int tiles = (shape.rows() * held + shape.stages * shape.columns * (qk + v)) * bytes;
  return larger(tiles, shape.rows() * larger(qk, v) * 4) +
         shape.stages * shape.columns * static_cast<int>(sizeof(CudaTerms));
}

}  // namespace longreach::interval
