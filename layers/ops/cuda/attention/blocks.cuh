// What the attention kernels have in common: which tile a block works on, the loads of its rows, and the way
// of accumulators to global memory.
#pragma once
#include "layers/ops/cuda/attention/params.h"
#include "layers/ops/cuda/fragments.cuh"

namespace longreach::cuda::attention {

using cuda::lane_id;
using cuda::Tile;

inline constexpr unsigned kAllLanes = 0xffffffffu;
inline constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

__device__ __forceinline__ int warp_id() { return static_cast<int>(threadIdx.x) >> 5; }

__device__ __forceinline__ char* row_pointer(const CudaRows& rows, int batch, int64_t token, int head) {
  return rows.data + batch * rows.batch + token * rows.token + head * rows.head;
}

// Tile number `index` of a problem.
__device__ __forceinline__ CudaTile tile_at(const CudaTile* tiles, int index, int tile_rows, int queries,
                                            int keys) {
  if (tiles == nullptr) return {index * tile_rows, 0, queries, 0, keys, 0, {}};
  const int4* words = reinterpret_cast<const int4*>(tiles + index);
  const int4 a = words[0], b = words[1];
  return {a.x, a.y, a.z, a.w, b.x, b.y, {}};
}

// A block's number, taken apart: tiles change fastest, so that neighbouring blocks share keys and values.
struct BlockPlace {
  int tile, head, batch;

  __device__ __forceinline__ BlockPlace(unsigned index, int tiles, int heads) {
    tile = static_cast<int>(index % static_cast<unsigned>(tiles));
    const unsigned rest = index / static_cast<unsigned>(tiles);
    head = static_cast<int>(rest % static_cast<unsigned>(heads));
    batch = static_cast<int>(rest / static_cast<unsigned>(heads));
  }
};

// A warp's part of a tile of scores: the first of its rows, and its number among the warps that share out the
// columns of these rows.
struct WarpPlace {
  int key_warp, first_row;
};

template <class Sizes>
__device__ __forceinline__ WarpPlace warp_place() {
  constexpr int kRowWarps = Sizes::kShape.row_warps;
  return {warp_id() / kRowWarps, warp_id() % kRowWarps * Sizes::kShape.row_tiles * 16};
}

// Row `r` of a block as a query of a head: consecutive queries, or all heads of one query after another.
template <bool kPacked>
struct RowPlaces {
  int first, group, q_begin, first_head, count;

  __device__ __forceinline__ RowPlaces(const CudaTile& tile, int rows, int head_group, int heads_a_group)
      : first(tile.first),
        group(kPacked ? heads_a_group : 1),
        q_begin(tile.q_begin),
        first_head(head_group * group),
        count(min(rows, (tile.q_end - tile.q_begin) * group - tile.first)) {}
  __device__ __forceinline__ int query(int row) const {
    return q_begin + (kPacked ? (first + row) / group : first + row);
  }
  __device__ __forceinline__ int head(int row) const {
    return kPacked ? first_head + (first + row) % group : first_head;
  }
};

// Changes the sign of a tile of Q: a negative scale as a positive one.
template <class Element, int kBytes, int kThreads>
__device__ __forceinline__ void negate_tile(char* tile) {
  const uint32_t signs = Element::kBytes == 4 ? 0x80000000u : 0x80008000u;
  ptx::cp_async_wait<0>();
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x) * 4; i < kBytes; i += kThreads * 4)
    *reinterpret_cast<uint32_t*>(tile + i) ^= signs;
  __syncthreads();
}

// Accumulators pass through shared memory as fp32 rows, so that global memory is written 16 bytes a lane. The
// XOR spreads the four rows that half a warp writes at once, and keeps 16-byte chunks together.
template <int kColumns>
__device__ __forceinline__ int staged(int row, int column) {
  return row * kColumns + (((column >> 3) ^ (row & 3)) << 3) + (column & 7);
}

template <int kColumns, int kRowTiles, int kColumnTiles>
__device__ __forceinline__ void stage(float* staging, int first_row,
                                      const float (&acc)[kRowTiles][kColumnTiles][4],
                                      const float (&factor)[kRowTiles][2]) {
  static_assert(kColumns == kColumnTiles * 8);
  const int row = first_row + (lane_id() >> 2), column = (lane_id() & 3) * 2;
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n)
#pragma unroll
      for (int h = 0; h < 2; ++h)
        // One store of both: the compiler takes half of such stores apart, and single ones meet in the banks.
        ptx::store_shared_8(staging + staged<kColumns>(row + m * 16 + h * 8, n * 8 + column),
                            acc[m][n][h * 2] * factor[m][h], acc[m][n][h * 2 + 1] * factor[m][h]);
}

// Four staged numbers, summed over kParts tiles that lie one after another.
template <int kRows, int kColumns, int kParts>
__device__ __forceinline__ float4 staged_sum(const float* staging, int row, int column) {
  float4 sum = *reinterpret_cast<const float4*>(staging + staged<kColumns>(row, column));
#pragma unroll
  for (int part = 1; part < kParts; ++part) {
    const float4 x =
        *reinterpret_cast<const float4*>(staging + part * kRows * kColumns + staged<kColumns>(row, column));
    sum = make_float4(sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w);
  }
  return sum;
}

// Writes the first `count` of kCount numbers: whole when the row is aligned, else one by one.
__device__ __forceinline__ void store_floats(char* out, float4 x, int count, bool aligned) {
  float* to = reinterpret_cast<float*>(out);
  if (aligned && count >= 4) {
    *reinterpret_cast<float4*>(to) = x;
    return;
  }
  const float values[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (i < count) to[i] = values[i];
}

template <class Element>
__device__ __forceinline__ void store_halves(char* out, float4 x, float4 y, int count, bool aligned) {
  const uint4 packed = make_uint4(Element::pack(x.x, x.y), Element::pack(x.z, x.w), Element::pack(y.x, y.y),
                                  Element::pack(y.z, y.w));
  if (aligned && count >= 8) {
    *reinterpret_cast<uint4*>(out) = packed;
    return;
  }
  const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int i = 0; i < 8; ++i)
    if (i < count)
      reinterpret_cast<uint16_t*>(out)[i] = static_cast<uint16_t>(words[i >> 1] >> ((i & 1) * 16));
}

// The first `rows` staged rows to `out(row)`, rounded to Element unless `target` is fp32.
template <class Element, int kRows, int kColumns, int kParts, int kThreads, class RowPointer>
__device__ __forceinline__ void store_staged(const float* staging, int rows, const CudaRows& target,
                                             RowPointer out) {
  const bool aligned = target.aligned;
  if (Element::kBytes == 4 || target.is_float) {
    for (int i = static_cast<int>(threadIdx.x); i < kRows * (kColumns / 4); i += kThreads) {
      const int row = i / (kColumns / 4), column = i % (kColumns / 4) * 4;
      if (row < rows && column < target.size)
        store_floats(out(row) + column * 4, staged_sum<kRows, kColumns, kParts>(staging, row, column),
                     target.size - column, aligned);
    }
    return;
  }
  if constexpr (Element::kBytes == 2) {
    for (int i = static_cast<int>(threadIdx.x); i < kRows * (kColumns / 8); i += kThreads) {
      const int row = i / (kColumns / 8), column = i % (kColumns / 8) * 8;
      // Every other four lanes begin with the second half, which lies in the banks that the others leave
      // free.
      const int swap = i >> 2 & 1;
      const float4 a = staged_sum<kRows, kColumns, kParts>(staging, row, column + swap * 4);
      const float4 b = staged_sum<kRows, kColumns, kParts>(staging, row, column + (swap ^ 1) * 4);
      if (row < rows && column < target.size)
        store_halves<Element>(out(row) + column * 2, swap ? b : a, swap ? a : b, target.size - column,
                              aligned);
    }
  }
}

}  // namespace longreach::cuda::attention
