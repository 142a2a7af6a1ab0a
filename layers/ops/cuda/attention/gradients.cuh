// What the backward passes of attention share: gradients of scores from scores, and the way of sums to
// memory.
#pragma once
#include "layers/ops/cuda/attention/blocks.cuh"

namespace longreach::cuda::attention {

// A warp's scores of a streamed tile with a held one, and, where wanted, gradients of weights. In shared
// memory, rows of V or dO follow those of Q or K in the held tile as in the streamed one.
template <class Element, class Sizes, int kQk, int kV, bool kGradients, int kRowTiles, int kColumnTiles>
__device__ __forceinline__ void multiply_tiles(float (&scores)[kRowTiles][kColumnTiles][4],
                                               float (&gradients)[kRowTiles][kColumnTiles][4], uint32_t held,
                                               uint32_t streamed, const WarpPlace& warp) {
  constexpr int kQkBytes = kQk * Element::kBytes, kVBytes = kV * Element::kBytes;
  const int own = warp.key_warp * kColumnTiles * 8;
  clear(scores);
  multiply_rows<Element, kQkBytes>(scores, SharedRows<kQkBytes>{held + warp.first_row * kQkBytes},
                                   streamed + own * kQkBytes);
  if constexpr (kGradients) {
    clear(gradients);
    const uint32_t left = held + Sizes::kRows * kQkBytes, right = streamed + Sizes::kShape.columns * kQkBytes;
    multiply_rows<Element, kVBytes>(gradients, SharedRows<kVBytes>{left + warp.first_row * kVBytes},
                                    right + own * kVBytes);
  }
}

// Starts the copies of the keys that a block of key_gradient holds and, where wanted, of their values: rows
// from `token` on, of the heads that belong to query head `head`.
template <class Element, class Sizes, int kQk, int kV, bool kWithValues, class Problem>
__device__ __forceinline__ void load_held_keys(const Problem& p, uint32_t keys, int count, int batch,
                                               int64_t token, int head) {
  constexpr int kRows = Sizes::kRows, kThreads = Sizes::kThreads;
  constexpr int kQkBytes = kQk * Element::kBytes, kVBytes = kV * Element::kBytes;
  load_tile<kRows, kQkBytes, kThreads>(keys, count, p.k.size * Element::kBytes,
                                       row_pointer(p.k, batch, token, head * p.key_heads / p.heads),
                                       p.k.token);
  if constexpr (kWithValues)
    load_tile<kRows, kVBytes, kThreads>(keys + kRows * kQkBytes, count, p.v.size * Element::kBytes,
                                        row_pointer(p.v, batch, token, head * p.value_heads / p.heads),
                                        p.v.token);
  ptx::cp_async_commit();
}

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

// Accumulators of all warps to rows in memory: those of warps that share out columns add up.
template <class Element, class Sizes, int kSize, int kRowTiles, class RowPointer>
__device__ __forceinline__ void store_sums(char* shared, const float (&acc)[kRowTiles][kSize / 8][4],
                                           float scale, const WarpPlace& warp, int rows, const CudaRows& out,
                                           RowPointer row) {
  constexpr int kRows = Sizes::kRows, kKeyWarps = Sizes::kShape.key_warps;
  float factor[kRowTiles][2];  // (16-row tiles, rows of a lane)
  fill(factor, scale);
  float* staging = reinterpret_cast<float*>(shared);
  stage<kSize>(staging + warp.key_warp * kRows * kSize, warp.first_row, acc, factor);
  __syncthreads();
  store_staged<Element, kRows, kSize, kKeyWarps, Sizes::kThreads>(staging, rows, out, row);
}

}  // namespace longreach::cuda::attention
