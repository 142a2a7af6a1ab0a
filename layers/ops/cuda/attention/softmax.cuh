// Online softmax over accumulators (Milakov and Gimelshein, arXiv 1805.02867; FlashAttention-2, arXiv
// 2307.08691): rows keep a running maximum of raw scores and a running sum, each lane its part of the sum.
#pragma once
#include "layers/ops/cuda/attention/blocks.cuh"

namespace longreach::cuda::attention {

__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}

__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// The exponent that weights are relative to; 0 for rows that have seen nothing, where a difference of
// infinities would be NaN.
__device__ __forceinline__ float reference_exponent(float maximum, float scale_log2) {
  return maximum == -INFINITY ? 0.0f : maximum * scale_log2;
}

// How scores of a row become weights relative to its maximum, whose own weight is about 1: exp2(score scale -
// offset).
struct RowScale {
  float scale, offset;

  // The offset of very large scores rounds by more than a weight can be. Scaled by the next power of two it
  // is exact; fp32 scores that differ then do so by 2^16 in their weights or more, either way.
  __device__ __forceinline__ RowScale(float maximum, float scale_log2)
      : scale(scale_log2), offset(reference_exponent(maximum, scale_log2)) {
    if (fabsf(offset) < 0x1p28f) return;
    scale = __uint_as_float((__float_as_uint(scale_log2) & 0xff800000u) + 0x00800000u);
    offset = maximum * scale;
  }
  __device__ __forceinline__ float weight(float score) const {
    return ptx::exp2_approx(fmaf(score, scale, -offset));
  }
};

template <int kRowTiles, int kColumnTiles>
__device__ __forceinline__ void scale_rows(float (&acc)[kRowTiles][kColumnTiles][4],
                                           const float (&factor)[kRowTiles][2]) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) acc[m][n][e] *= factor[m][e >> 1];
}

template <int kRowTiles>
struct SoftmaxRows {
  float maximum[kRowTiles][2], sum[kRowTiles][2];  // (16-row tiles, rows of a lane)

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        maximum[m][h] = -INFINITY;
        sum[m][h] = 0.0f;
      }
  }

  // Scores become weights relative to the new maximum; `shrink` brings what was summed before to it.
  template <int kColumnTiles>
  __device__ __forceinline__ void weigh(float (&scores)[kRowTiles][kColumnTiles][4],
                                        float (&shrink)[kRowTiles][2], float scale_log2) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float largest = maximum[m][h];
#pragma unroll
        for (int n = 0; n < kColumnTiles; ++n)
          largest = fmaxf(largest, fmaxf(scores[m][n][h * 2], scores[m][n][h * 2 + 1]));
        largest = quad_max(largest);
        const RowScale row(largest, scale_log2);
        shrink[m][h] = row.weight(maximum[m][h]);
        maximum[m][h] = largest;
        float added = 0.0f;
#pragma unroll
        for (int n = 0; n < kColumnTiles; ++n)
#pragma unroll
          for (int e = h * 2; e < h * 2 + 2; ++e) {
            scores[m][n][e] = row.weight(scores[m][n][e]);
            added += scores[m][n][e];
          }
        sum[m][h] = sum[m][h] * shrink[m][h] + added;
      }
  }

  // Scores become weights; what `acc` holds is brought to the new maximum.
  template <int kColumnTiles, int kValueTiles>
  __device__ __forceinline__ void step(float (&scores)[kRowTiles][kColumnTiles][4],
                                       float (&acc)[kRowTiles][kValueTiles][4], float scale_log2) {
    float shrink[kRowTiles][2];  // (16-row tiles, rows of a lane)
    weigh(scores, shrink, scale_log2);
    scale_rows(acc, shrink);
  }

  // Ends the pass. `factor` brings accumulators to output; lse is natural. A row whose sum is 0 has seen
  // nothing; NaN stays NaN. Where kKeyWarps warps have seen different keys of the same rows, they meet in
  // `meeting` [kKeyWarps][kRows] and their scaled accumulators add up to the output. All threads of the block
  // call it.
  template <int kKeyWarps, int kRows>
  __device__ __forceinline__ void finish(float scale_log2, float2* meeting, int key_warp, int first_row,
                                         float (&factor)[kRowTiles][2], float (&lse)[kRowTiles][2]) {
    const int lane = lane_id();
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        sum[m][h] = quad_sum(sum[m][h]);
        if (kKeyWarps > 1 && (lane & 3) == 0)
          meeting[key_warp * kRows + first_row + m * 16 + h * 8 + (lane >> 2)] =
              make_float2(maximum[m][h], sum[m][h]);
      }
    if (kKeyWarps > 1) __syncthreads();
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float largest = maximum[m][h], total = sum[m][h];
        if (kKeyWarps > 1) {
          const float2* warps = meeting + first_row + m * 16 + h * 8 + (lane >> 2);
#pragma unroll
          for (int w = 0; w < kKeyWarps; ++w) largest = fmaxf(largest, warps[w * kRows].x);
          const RowScale row(largest, scale_log2);
          total = 0.0f;
#pragma unroll
          for (int w = 0; w < kKeyWarps; ++w) total += warps[w * kRows].y * row.weight(warps[w * kRows].x);
        }
        const float exponent = reference_exponent(largest, scale_log2);
        const float own = RowScale(largest, scale_log2).weight(maximum[m][h]);
        factor[m][h] = total == 0.0f ? 0.0f : own / total;
        lse[m][h] = total == 0.0f ? -INFINITY : (exponent + ptx::log2_approx(total)) * kLn2;
      }
  }
};

}  // namespace longreach::cuda::attention
