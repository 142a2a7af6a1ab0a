// The passes over rows that interval attention alone has: hulls of explicit intervals and the merge of
// decoding's splits. Both are bound by memory; blocks have kRowThreads threads, and each kernel's comment
// says what one of its warps does.
#pragma once
#include "layers/ops/cuda/attention/rows.cuh"
#include "layers/ops/interval_attention/cuda/mask.cuh"

namespace longreach::interval {

// Hulls of tiles of queries: a warp has one.
__device__ __forceinline__ void hulls(const CudaHulls& p) {
  const int64_t index = global_warp(),
                count = static_cast<int64_t>(p.tile_count) * p.mask.batches * p.mask.heads;
  if (index >= count) return;
  const CudaTile tile =
      tile_at(p.tiles, static_cast<int>(index % p.tile_count), p.tile_rows, p.queries, p.keys);
  const int64_t head_row = index / p.tile_count;
  const RowMask mask(p.mask, tile, p.queries, static_cast<int>(head_row / p.mask.heads),
                     static_cast<int>(head_row % p.mask.heads), p.mask.heads);
  const int first = tile.q_begin + tile.first, end = min(first + p.tile_rows, tile.q_end);
  CudaHull hull = empty_hull(mask);
  for (int query = first + lane_id(); query < end; query += 32) add_row(hull, mask.of(query));
  hull = combine_lanes(hull);
  if (lane_id() != 0) return;
  int4* out = reinterpret_cast<int4*>(p.hulls + index);
  out[0] = make_int4(hull.begin, hull.end, hull.last_lo, hull.first_hi);
  out[1] = make_int4(hull.visible_end, 0, 0, 0);
}

// Splits weighted by exp(lse - joint lse), in their order. A warp has one row.
template <class Element>
__device__ __forceinline__ void merge_splits(const CudaMerge& p) {
  const int64_t row = global_warp();
  if (row >= static_cast<int64_t>(p.queries) * p.heads * p.batches) return;
  float largest = -3.4e38f, total = 0.0f;  // finite, so that splits that saw nothing weigh 0
  for (int split = 0; split < p.splits; ++split) largest = fmaxf(largest, p.lse[split * p.split_lse + row]);
  const auto weight_of = [&](int split) {
    return ptx::exp2_approx((p.lse[split * p.split_lse + row] - largest) * kLog2e);
  };
  for (int split = 0; split < p.splits; ++split) total += weight_of(split);
  const float inverse = total == 0.0f ? 0.0f : 1.0f / total;  // NaN stays NaN
  const int64_t head_row = row / p.queries;
  char* out = row_pointer(p.out, static_cast<int>(head_row / p.heads), row % p.queries,
                          static_cast<int>(head_row % p.heads));
  for (int element = lane_id(); element < p.out.size; element += 32) {
    float sum = 0.0f;
#pragma unroll 2
    for (int split = 0; split < p.splits; ++split)
      sum = fmaf(weight_of(split) * inverse, p.o[split * p.split_o + row * p.row + element], sum);
    store_element<Element>(out, element, sum);
  }
  if (lane_id() == 0)
    p.out_lse[row] = total == 0.0f ? -INFINITY : fmaf(ptx::log2_approx(total), kLn2, largest);
}

}  // namespace longreach::interval
