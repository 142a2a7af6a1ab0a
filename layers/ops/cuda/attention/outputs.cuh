// What the forward passes of attention share: scores of held queries, and the sums of a warp's rows on their
// way through the keys and to memory.
#pragma once
#include "layers/ops/cuda/attention/softmax.cuh"

namespace longreach::cuda::attention {

// A warp's rows of Q, the left factor of its scores: read from shared memory at each use, or, where registers
// suffice, with the first tile alone.
template <class Element, int kQk, int kRowTiles>
struct QueryRows {
  static constexpr int kBytes = kQk * Element::kBytes;
  static constexpr bool kHold = Element::kBytes == 2 && kRowTiles * kQk <= 64;
  HeldRows<kHold ? kRowTiles : 1, kHold ? kBytes : 32> held;

  __device__ __forceinline__ void load(uint32_t queries) { held.load(queries); }
  template <int kColumnTiles>
  __device__ __forceinline__ void multiply(float (&scores)[kRowTiles][kColumnTiles][4], uint32_t queries,
                                           uint32_t keys) const {
    clear(scores);
    if constexpr (kHold) {
      multiply_rows<Element, kBytes>(scores, held, keys);
    } else {
      multiply_rows<Element, kBytes>(scores, SharedRows<kBytes>{queries}, keys);
    }
  }
};

// A warp's rows of the output: sums of weighted values, and the softmax that weighs them.
template <class Element, class Sizes, int kV>
struct OutputRows {
  static constexpr int kRows = Sizes::kRows, kRowTiles = Sizes::kShape.row_tiles;
  static constexpr int kKeyWarps = Sizes::kShape.key_warps;
  WarpPlace warp;
  SoftmaxRows<kRowTiles> softmax;
  float acc[kRowTiles][kV / 8][4];  // (16-row tiles, 8-column tiles of V, elements of a lane)
  float lse[kRowTiles][2];          // (16-row tiles, rows of a lane)

  __device__ __forceinline__ explicit OutputRows(const WarpPlace& place) : warp(place) {
    clear(acc);
    softmax.clear();
  }
  // Ends the pass: all rows of the block as fp32 to `staging`. `meeting` as in SoftmaxRows::finish.
  __device__ __forceinline__ void finish(float* staging, float2* meeting, float scale_log2) {
    float factor[kRowTiles][2];  // (16-row tiles, rows of a lane)
    softmax.template finish<kKeyWarps, kRows>(scale_log2, meeting, warp.key_warp, warp.first_row, factor,
                                              lse);
    stage<kV>(staging + warp.key_warp * kRows * kV, warp.first_row, acc, factor);
    __syncthreads();
  }
  // Row r of the first `rows` to row_pointer(r) of `out`, its lse to lse_pointer(r).
  template <class RowPointer, class LsePointer>
  __device__ __forceinline__ void store(const float* staging, int rows, const CudaRows& out,
                                        RowPointer row_pointer, LsePointer lse_pointer) const {
    store_staged<Element, kRows, kV, kKeyWarps, Sizes::kThreads>(staging, rows, out, row_pointer);
    if (warp.key_warp != 0 || (lane_id() & 3) != 0) return;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = warp.first_row + m * 16 + h * 8 + (lane_id() >> 2);
        if (row < rows) *lse_pointer(row) = lse[m][h];
      }
  }
};

}  // namespace longreach::cuda::attention
