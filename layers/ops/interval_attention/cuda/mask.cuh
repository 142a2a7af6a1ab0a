// Which keys queries see, on the device: intervals of rows, hulls of tiles, and the walks over the tiles that
// some row may see. The same rules as cpu/plan.h.
#pragma once
#include "layers/ops/cuda/attention/blocks.cuh"
#include "layers/ops/interval_attention/cuda/params.h"

namespace longreach::interval {

struct Interval {
  int lo, hi;  // within the document's keys
};

// The interval of one query of a document; `lo` and `hi` point at the mask's row, or are null.
struct RowMask {
  const int32_t *lo, *hi;
  int causal, window, shift, k_begin, k_end, sink_end;

  __device__ __forceinline__ RowMask(const CudaMask& mask, const CudaTile& tile, int queries, int batch,
                                     int head, int heads)
      : lo(nullptr),
        hi(nullptr),
        causal(mask.causal),
        window(mask.window),
        shift(tile.k_end - tile.q_end),
        k_begin(tile.k_begin),
        k_end(tile.k_end),
        sink_end(tile.k_begin + min(mask.sinks, tile.k_end - tile.k_begin)) {
    if (mask.lo == nullptr) return;
    const int mask_head = static_cast<int>(static_cast<int64_t>(head) * mask.heads / heads);
    const int64_t row =
        (static_cast<int64_t>(mask.batches > 1 ? batch : 0) * mask.heads + mask_head) * queries;
    lo = mask.lo + row;
    hi = mask.hi + row;
  }

  __device__ __forceinline__ Interval of(int query) const {
    int low = k_begin, high = k_end;
    if (lo != nullptr) {
      low = lo[query];
      high = hi[query];
    } else {
      const int position = query + shift;
      if (causal) high = position + 1;
      if (window > 0) low = position - window + 1;
    }
    return {min(max(low, k_begin), k_end), min(max(high, k_begin), k_end)};
  }

  // Without branches: a whole tile is masked at once.
  __device__ __forceinline__ bool sees(const Interval& interval, int key) const {
    return (key < interval.hi) & ((key >= interval.lo) | (key < sink_end));
  }

  // Of the queries `first` to `last` where both ends rise with the query (no explicit intervals).
  __device__ __forceinline__ CudaHull rising_hull(int first, int last) const {
    const Interval a = of(first), b = of(last);
    const bool some = a.lo < b.hi;
    return {some ? a.lo : k_begin, some ? b.hi : k_begin, b.lo, a.hi, b.hi, {}};
  }
};

// Adds a row to a hull that began with empty_hull().
__device__ __forceinline__ CudaHull empty_hull(const RowMask& mask) {
  return {mask.k_end, mask.k_begin, mask.k_begin, mask.k_end, mask.k_begin, {}};
}

__device__ __forceinline__ void add_row(CudaHull& hull, const Interval& row) {
  if (row.lo < row.hi) {
    hull.begin = min(hull.begin, row.lo);
    hull.end = max(hull.end, row.hi);
  }
  hull.last_lo = max(hull.last_lo, row.lo);
  hull.first_hi = min(hull.first_hi, row.hi);
  hull.visible_end = max(hull.visible_end, row.hi);
}

// The hull of what all lanes hold, in all lanes.
__device__ __forceinline__ CudaHull combine_lanes(CudaHull hull) {
  hull.begin = __reduce_min_sync(kAllLanes, hull.begin);
  hull.end = __reduce_max_sync(kAllLanes, hull.end);
  hull.last_lo = __reduce_max_sync(kAllLanes, hull.last_lo);
  hull.first_hi = __reduce_min_sync(kAllLanes, hull.first_hi);
  hull.visible_end = __reduce_max_sync(kAllLanes, hull.visible_end);
  if (hull.begin > hull.end) hull.begin = hull.end;
  return hull;
}

// Do all rows of the hull see all keys from `from` up to `to`?
__device__ __forceinline__ bool sees_all(const CudaHull& hull, int sink_end, int from, int to) {
  return to <= hull.first_hi && (from >= hull.last_lo || to <= sink_end);
}

// Does some row of the hull perhaps see one of these keys?
__device__ __forceinline__ bool sees_some(const CudaHull& hull, int sink_end, int from, int to) {
  return (hull.begin < to && hull.end > from) || from < min(sink_end, hull.visible_end);
}

// The tiles of `columns` keys, counted from the document's first key, that a tile of queries visits: the
// sinks, then the hull. `share` of `shares` takes its part of them.
struct KeyWalk {
  int position, end, sink_tiles, gap;

  __device__ __forceinline__ KeyWalk(const CudaHull& hull, const RowMask& mask, int columns, int share = 0,
                                     int shares = 1)
      : sink_tiles((max(min(mask.sink_end, hull.visible_end) - mask.k_begin, 0) + columns - 1) / columns) {
    const int first = max((hull.begin - mask.k_begin) / columns, sink_tiles);
    const int last = (hull.end - mask.k_begin + columns - 1) / columns;
    gap = first - sink_tiles;
    const int64_t count = sink_tiles + max(last - first, 0);
    position = static_cast<int>(count * share / shares);
    end = static_cast<int>(count * (share + 1) / shares);
  }
  __device__ __forceinline__ bool valid() const { return position < end; }
  __device__ __forceinline__ void advance() { ++position; }
  __device__ __forceinline__ int tile() const { return position < sink_tiles ? position : position + gap; }
};

}  // namespace longreach::interval
