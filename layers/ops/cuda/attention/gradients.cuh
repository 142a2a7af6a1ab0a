// What the backward passes of attention share: gradients of scores from scores, and the way of sums to
// memory.
#pragma once
#include "layers/ops/cuda/attention/blocks.cuh"

namespace longreach::cuda::attention {

// Scores become weights, gradients of weights become gradients of scores (without the scale).
// terms(m, n, e): lse and delta of an element; sees(m, n, e): is it visible? Asked where `border` is set.
template <bool kWithScores, int kRowTiles, int kColumnTiles, class Terms, class Sees>
__device__ __forceinline__ void weights_and_gradients(float (&scores)[kRowTiles][kColumnTiles][4],
                                                      float (&gradients)[kRowTiles][kColumnTiles][4],
                                                      float scale_log2, bool border, Terms terms, Sees sees) {
#pragma unroll
  for (int n = 0; n < kColumnTiles; ++n)
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        scores[m][n][e] = ptx::exp2_approx(fmaf(scores[m][n][e], scale_log2, -terms(m, n, e).lse));
  if (border) {
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n)
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e) scores[m][n][e] = sees(m, n, e) ? scores[m][n][e] : 0.0f;
  }
  if constexpr (kWithScores) {
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n)
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          gradients[m][n][e] = scores[m][n][e] * (gradients[m][n][e] - terms(m, n, e).delta);
  }
}

template <int kRowTiles>
__device__ __forceinline__ void fill(float (&factor)[kRowTiles][2], float value) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) factor[m][0] = factor[m][1] = value;
}

// Accumulators of all warps to rows in memory: those of key_warps warps add up.
template <class Element, int kRows, int kKeyWarps, int kThreads, int kSize, int kRowTiles, class RowPointer>
__device__ __forceinline__ void store_sums(char* shared, const float (&acc)[kRowTiles][kSize / 8][4],
                                           float scale, int first_row, int key_warp, int rows,
                                           const CudaRows& out, RowPointer row) {
  float factor[kRowTiles][2];  // (16-row tiles, rows of a lane)
  fill(factor, scale);
  float* staging = reinterpret_cast<float*>(shared);
  stage<kSize>(staging + key_warp * kRows * kSize, first_row, acc, factor);
  __syncthreads();
  store_staged<Element, kRows, kSize, kKeyWarps, kThreads>(staging, rows, out, row);
}

}  // namespace longreach::cuda::attention
