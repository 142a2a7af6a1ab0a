// Forward pass of interval attention on tensor cores (FlashAttention-2, arXiv 2307.08691), and decoding.
//
//   S = Q K^T    P = exp(scale S - running maximum)    O = P V / sum P    lse = maximum + log sum P
//
// Work: a block has one tile of queries of one head and walks over the tiles of keys that some of its rows
// see; its warps stand below one another. Q stays in shared memory (in registers where they suffice), K and V
// stream through two buffers by cp.async. P is rounded to the input dtype between the two products;
// everything else is fp32. Border tiles alone are masked.
// Decoding: rows are the queries of all heads that share a key and a value head; the warps of a block share
// out the keys of each tile, and blocks (splits) the tiles; merge_splits (rows.cuh) joins the splits.
// Memory traffic: Q and O once, K and V once for every tile of queries that sees them.
// Limits: the pairs of head dims in the .cu files; smaller ones are filled up with zeros. Rows of q, k and v
// are 16-byte aligned (plans copy those that are not).
#pragma once
#include "layers/ops/cuda/attention/outputs.cuh"
#include "layers/ops/interval_attention/cuda/mask.cuh"

namespace longreach::interval {

template <int kRowTiles, int kColumnTiles>
__device__ __forceinline__ void mask_scores(float (&scores)[kRowTiles][kColumnTiles][4],
                                            const int2* intervals, const RowMask& mask, int first_key) {
  const int key = first_key + (lane_id() & 3) * 2;
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int2 ends = intervals[m * 16 + h * 8 + (lane_id() >> 2)];
      const Interval interval{ends.x, ends.y};
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& score = scores[m][n][h * 2 + e];
          score = mask.sees(interval, key + n * 8 + e) ? score : -INFINITY;
        }
    }
}

// The intervals of all rows of a block, and their hull.
template <bool kPacked>
struct BlockIntervals {
  const CudaProblem& p;
  const CudaTile& tile;
  const RowPlaces<kPacked>& places;
  const RowMask& mask;
  int batch;

  // Rows past the end repeat the last one.
  __device__ __forceinline__ Interval of(int row) const {
    const int inside = min(row, places.count - 1);
    if (!kPacked || p.mask.lo == nullptr) return mask.of(places.query(inside));
    return RowMask(p.mask, tile, p.queries, batch, places.head(inside), p.heads).of(places.query(inside));
  }
  template <int kRows>
  __device__ __forceinline__ CudaHull hull() const {
    if (p.mask.lo == nullptr) return mask.rising_hull(places.query(0), places.query(places.count - 1));
    CudaHull hull = empty_hull(mask);
#pragma unroll 1
    for (int row = lane_id(); row < kRows; row += 32) add_row(hull, of(row));
    return combine_lanes(hull);
  }
  // Only border tiles read them: shared memory keeps them out of the registers.
  template <int kRows, int kThreads>
  __device__ __forceinline__ void write(int2* intervals) const {
    for (int row = static_cast<int>(threadIdx.x); row < kRows; row += kThreads) {
      const Interval interval = of(row);
      intervals[row] = make_int2(interval.lo, interval.hi);
    }
  }
};

// The keys and values of a tile's document, of the heads that belong to query head `head`: a stage takes a
// tile of them, keys first.
template <class Element, class Sizes, int kQk, int kV>
struct KeyTiles {
  static constexpr int kColumns = Sizes::kShape.columns, kThreads = Sizes::kThreads;
  static constexpr int kQkBytes = kQk * Element::kBytes, kVBytes = kV * Element::kBytes;
  const CudaProblem& p;
  const CudaTile& tile;
  uint32_t stages;
  const char *keys, *values;

  __device__ __forceinline__ KeyTiles(const CudaProblem& problem, const CudaTile& of, int batch, int head,
                                      uint32_t to)
      : p(problem),
        tile(of),
        stages(to),
        keys(row_pointer(p.k, batch, tile.k_begin, head * p.key_heads / p.heads)),
        values(row_pointer(p.v, batch, tile.k_begin, head * p.value_heads / p.heads)) {}
  __device__ __forceinline__ void load(int index, int stage) const {
    const int first = index * kColumns, count = tile.k_end - tile.k_begin - first;
    const uint32_t to = stages + stage * kColumns * (kQkBytes + kVBytes);
    cuda::load_tile<kColumns, kQkBytes, kThreads>(to, count, p.k.size * Element::kBytes,
                                                  keys + first * p.k.token, p.k.token);
    cuda::load_tile<kColumns, kVBytes, kThreads>(to + kColumns * kQkBytes, count, p.v.size * Element::kBytes,
                                                 values + first * p.v.token, p.v.token);
  }
};

// The sizes of one kernel. (A constant of a class: device code may not call the functions that give the
// shapes.)
template <int kElementBytes, int kQk, int kV, bool kDecode>
struct ForwardSizes {
  static constexpr TileShape kShape =
      kDecode ? decode_shape(kElementBytes, kQk, kV) : forward_shape(kElementBytes, kQk, kV);
  static constexpr int kRows = kShape.rows(), kThreads = kShape.threads();
  // Intervals of the rows; once the loop is over, the place where warps meet.
  static constexpr int kIntervals =
      forward_shared(kShape, kElementBytes, kQk, kV) - kRows * kShape.key_warps * 8;
};

template <class Element, int kQk, int kV, bool kDecode>
__device__ __forceinline__ void forward(const CudaForward& params) {
  using Sizes = ForwardSizes<Element::kBytes, kQk, kV, kDecode>;
  constexpr TileShape kShape = Sizes::kShape;
  constexpr int kRows = Sizes::kRows, kThreads = Sizes::kThreads, kRowTiles = kShape.row_tiles;
  constexpr int kKeyWarps = kShape.key_warps, kColumns = kShape.columns, kOwn = kColumns / kKeyWarps;
  constexpr int kQkBytes = kQk * Element::kBytes, kVBytes = kV * Element::kBytes;
  constexpr int kHeldBytes = kRows * kQkBytes, kStageBytes = kColumns * (kQkBytes + kVBytes);
  using Queries = QueryRows<Element, kQk, kRowTiles>;
  extern __shared__ __align__(128) char shared[];
  const CudaProblem& p = params.problem;

  const unsigned block = kDecode ? blockIdx.x / static_cast<unsigned>(params.splits) : blockIdx.x;
  const int split = kDecode ? static_cast<int>(blockIdx.x % static_cast<unsigned>(params.splits)) : 0;
  const BlockPlace place(block, p.tile_count, kDecode ? p.heads / p.group : p.heads);
  // Under a causal mask the last tiles are the longest: they begin first.
  const CudaTile tile = tile_at(p.tiles, p.tile_count - 1 - place.tile, kRows, p.queries, p.keys);
  const RowPlaces<kDecode> places(tile, kRows, place.head, p.group);
  const RowMask mask(p.mask, tile, p.queries, place.batch, places.first_head, p.heads);
  const BlockIntervals<kDecode> block_intervals{p, tile, places, mask, place.batch};
  const WarpPlace warp = warp_place<Sizes>();

  const uint32_t queries = ptx::shared_address(shared);
  cuda::gather_tile<kRows, kQkBytes, kThreads>(
      queries, places.count, p.q.size * Element::kBytes,
      [&](int row) { return row_pointer(p.q, place.batch, places.query(row), places.head(row)); });
  ptx::cp_async_commit();
  if (p.negate) negate_tile<Element, kHeldBytes, kThreads>(shared);

  const CudaHull hull = block_intervals.template hull<kRows>();
  int2* intervals = reinterpret_cast<int2*>(shared + Sizes::kIntervals);
  block_intervals.template write<kRows, kThreads>(intervals);
  const KeyTiles<Element, Sizes, kQk, kV> key_tiles(p, tile, place.batch, places.first_head,
                                                    queries + kHeldBytes);
  const KeyWalk walk(hull, mask, kColumns, split, kDecode ? params.splits : 1);

  OutputRows<Element, Sizes, kV> outputs(warp);
  Queries query_rows;
  cuda::stream_tiles<kShape.stages>(
      walk, [&](const KeyWalk& at, int stage) { key_tiles.load(at.tile(), stage); },
      [&](const KeyWalk& at, int stage) {
        const int first = tile.k_begin + at.tile() * kColumns, own = warp.key_warp * kOwn;
        const int base = kHeldBytes + stage * kStageBytes;
        float scores[kRowTiles][kOwn / 8][4];  // (16-row tiles, 8-key tiles of a warp, elements of a lane)
        const uint32_t own_queries = queries + warp.first_row * kQkBytes;
        if constexpr (Queries::kHold)
          if (at.position == walk.position) query_rows.load(own_queries);
        query_rows.multiply(scores, own_queries, queries + base + own * kQkBytes);
        if (!sees_all(hull, mask.sink_end, first, first + kColumns))
          mask_scores(scores, intervals + warp.first_row, mask, first + own);
        outputs.softmax.step(scores, outputs.acc, p.scale_log2);
        cuda::multiply_weights<Element, kVBytes>(outputs.acc, scores,
                                                 shared + base + kColumns * kQkBytes + own * kVBytes);
      });

  float* staging = reinterpret_cast<float*>(shared);
  outputs.finish(staging, reinterpret_cast<float2*>(intervals), p.scale_log2);
  CudaRows out = params.o;
  out.data += split * params.split_o;
  outputs.store(
      staging, places.count, out,
      [&](int row) { return row_pointer(out, place.batch, places.query(row), places.head(row)); },
      [&](int row) {
        const int64_t head_row = static_cast<int64_t>(place.batch) * p.heads + places.head(row);
        return params.lse + split * params.split_lse + head_row * p.queries + places.query(row);
      });
}

}  // namespace longreach::interval
