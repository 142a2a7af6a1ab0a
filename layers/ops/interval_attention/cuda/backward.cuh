// Backward pass of interval attention on tensor cores (FlashAttention-2, arXiv 2307.08691), without atomics:
// every gradient is summed by one block in a fixed order.
//
//   P = exp(scale Q K^T - lse)    dP = dO V^T    dS = P (dP - delta)    delta = dO . O - d(lse)
//   dQ = scale dS K               dK = scale dS^T Q               dV = P^T dO
//
// Work: query_gradient has one tile of queries and walks over keys, key_gradient one tile of keys and walks
// over queries with S^T = K Q^T, so that in both the second product takes P or dS from registers: nothing of
// the size of a score tile passes through shared memory, at the price of two products made twice. lse and
// delta come from row_terms (rows.cuh). The held tiles lie in shared memory, the streamed ones have two
// buffers. P and dS are rounded to the input dtype between products; all sums are fp32.
// Grouped heads: a block of key_gradient adds up the query heads that share its key and value head; where
// these groups differ for keys and values, it writes fp32 parts that sum_heads (rows.cuh) adds.
#pragma once
#include "layers/ops/cuda/attention/gradients.cuh"
#include "layers/ops/interval_attention/cuda/forward.cuh"

namespace longreach::interval {

template <int kElementBytes, int kQk, int kV>
struct QueryGradientSizes {
  static constexpr TileShape kShape = query_gradient_shape(kElementBytes, kQk, kV);
  static constexpr int kRows = kShape.rows(), kThreads = kShape.threads();
  static constexpr int kIntervals = query_gradient_shared(kShape, kElementBytes, kQk, kV) - kRows * 8;
};

// lse and delta of a head's queries.
__device__ __forceinline__ const CudaTerms* terms_of(const CudaBackward& params, int batch, int head) {
  const CudaProblem& p = params.problem;
  return params.terms + (static_cast<int64_t>(batch) * p.heads + head) * p.queries;
}

// Starts the copies of a tile of queries and their dO: `rows` from `first` on, all other rows are zero.
template <class Element, int kRows, int kThreads, int kQk, int kV>
__device__ __forceinline__ void load_queries(const CudaBackward& params, uint32_t tile, int first, int rows,
                                             int head, int batch) {
  constexpr int kQkBytes = kQk * Element::kBytes, kVBytes = kV * Element::kBytes;
  const CudaRows &q = params.problem.q, &v = params.problem.v, &d_o = params.d_o;
  cuda::load_tile<kRows, kQkBytes, kThreads>(tile, rows, q.size * Element::kBytes,
                                             row_pointer(q, batch, first, head), q.token);
  cuda::load_tile<kRows, kVBytes, kThreads>(tile + kRows * kQkBytes, rows, v.size * Element::kBytes,
                                            row_pointer(d_o, batch, first, head), d_o.token);
}

template <class Element, int kQk, int kV>
__device__ __forceinline__ void query_gradient(const CudaBackward& params) {
  using Sizes = QueryGradientSizes<Element::kBytes, kQk, kV>;
  constexpr TileShape kShape = Sizes::kShape;
  constexpr int kRows = Sizes::kRows, kThreads = Sizes::kThreads, kRowTiles = kShape.row_tiles;
  constexpr int kColumns = kShape.columns;
  constexpr int kQkBytes = kQk * Element::kBytes, kVBytes = kV * Element::kBytes;
  constexpr int kHeldBytes = kRows * (kQkBytes + kVBytes), kStageBytes = kColumns * (kQkBytes + kVBytes);
  extern __shared__ __align__(128) char shared[];
  const CudaProblem& p = params.problem;

  const BlockPlace place(blockIdx.x, p.tile_count, p.heads);
  const CudaTile tile = tile_at(p.tiles, p.tile_count - 1 - place.tile, kRows, p.queries, p.keys);
  const RowPlaces<false> places(tile, kRows, place.head, 1);
  const RowMask mask(p.mask, tile, p.queries, place.batch, place.head, p.heads);
  const BlockIntervals<false> block_intervals{p, tile, places, mask, place.batch};
  const WarpPlace warp{0, warp_id() * kRowTiles * 16};
  const int first_query = places.query(0);

  const uint32_t queries = ptx::shared_address(shared);
  load_queries<Element, kRows, kThreads, kQk, kV>(params, queries, first_query, places.count, place.head,
                                                  place.batch);
  ptx::cp_async_commit();
  const CudaHull hull = block_intervals.template hull<kRows>();
  int2* intervals = reinterpret_cast<int2*>(shared + Sizes::kIntervals);
  block_intervals.template write<kRows, kThreads>(intervals);
  CudaTerms terms[kRowTiles][2];  // (16-query tiles, rows of a lane)
  const CudaTerms* head_terms = terms_of(params, place.batch, place.head) + first_query;
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = warp.first_row + m * 16 + h * 8 + (lane_id() >> 2);
      terms[m][h] = {0.0f, 0.0f};
      if (row < places.count) terms[m][h] = head_terms[row];
    }

  const KeyTiles<Element, Sizes, kQk, kV> key_tiles(p, tile, place.batch, place.head, queries + kHeldBytes);
  const KeyWalk walk(hull, mask, kColumns);
  float acc[kRowTiles][kQk / 8][4];  // (16-query tiles, 8-column tiles of Q, elements of a lane)
  cuda::clear(acc);
  cuda::stream_tiles<kShape.stages>(
      walk, [&](const KeyWalk& at, int stage) { key_tiles.load(at.tile(), stage); },
      [&](const KeyWalk& at, int stage) {
        const int first = tile.k_begin + at.tile() * kColumns, base = kHeldBytes + stage * kStageBytes;
        // (16-query tiles, 8-key tiles, elements of a lane)
        float scores[kRowTiles][kColumns / 8][4], gradients[kRowTiles][kColumns / 8][4];
        multiply_tiles<Element, Sizes, kQk, kV, true>(scores, gradients, queries, queries + base, warp);
        const int key = first + (lane_id() & 3) * 2;
        weights_and_gradients<true>(
            scores, gradients, p.scale_log2, !sees_all(hull, mask.sink_end, first, first + kColumns),
            [&](int m, int, int e) { return terms[m][e >> 1]; },
            [&](int m, int n, int e) {
              const int2 ends = intervals[warp.first_row + m * 16 + (e >> 1) * 8 + (lane_id() >> 2)];
              return mask.sees({ends.x, ends.y}, key + n * 8 + (e & 1));
            });
        cuda::multiply_weights<Element, kQkBytes>(acc, gradients, shared + base);
      });

  store_sums<Element, Sizes, kQk>(shared, acc, params.scale, warp, places.count, params.dq, [&](int row) {
    return row_pointer(params.dq, place.batch, first_query + row, place.head);
  });
}

// The tiles of queries of a group of heads that perhaps see a tile of keys, head by head. Each lane looks at
// one tile of 32; all lanes of the block come to the same tiles.
struct QueryScan {
  const CudaBackward& params;
  const CudaTile& tile;
  int batch, first_head, end_head, columns, tiles, key, key_end;

  __device__ __forceinline__ RowMask mask(int head) const {
    return RowMask(params.problem.mask, tile, params.problem.queries, batch, head, params.problem.heads);
  }
  __device__ __forceinline__ CudaHull hull(const RowMask& mask, int head, int index) const {
    if (params.hulls == nullptr) {
      const int first = tile.q_begin + index * columns;
      return mask.rising_hull(first, min(first + columns, tile.q_end) - 1);
    }
    const CudaMask& m = params.problem.mask;
    const int64_t mask_head = static_cast<int64_t>(m.batches > 1 ? batch : 0) * m.heads +
                              static_cast<int64_t>(head) * m.heads / params.problem.heads;
    const CudaHull* from = params.hulls + mask_head * params.hull_count + tile.query_tile + index;
    const int4 a = *reinterpret_cast<const int4*>(from);
    return {a.x, a.y, a.z, a.w, from->visible_end, {}};
  }
};

struct QueryWalk {
  const QueryScan* scan;
  int head, base;
  unsigned pending;

  __device__ __forceinline__ explicit QueryWalk(const QueryScan& s)
      : scan(&s), head(s.tiles > 0 ? s.first_head : s.end_head), base(-32), pending(0) {
    settle();
  }
  __device__ __forceinline__ bool valid() const { return head < scan->end_head; }
  __device__ __forceinline__ int tile() const { return base + __popc((pending - 1) & ~pending); }
  __device__ __forceinline__ void advance() {
    pending &= pending - 1;
    settle();
  }

 private:
  __device__ __forceinline__ void settle() {
#pragma unroll 1
    while (pending == 0 && valid()) {
      base += 32;
      if (base >= scan->tiles) {
        base = -32;
        ++head;
        continue;
      }
      const int index = base + lane_id();
      bool seen = false;
      if (index < scan->tiles) {
        const RowMask mask = scan->mask(head);
        seen = sees_some(scan->hull(mask, head, index), mask.sink_end, scan->key, scan->key_end);
      }
      pending = __ballot_sync(kAllLanes, seen);
    }
  }
};

template <int kElementBytes, int kQk, int kV, KeyGradients kParts>
struct KeyGradientSizes {
  static constexpr TileShape kShape = key_gradient_shape(kElementBytes, kQk, kV);
  static constexpr int kRows = kShape.rows(), kThreads = kShape.threads();
  static constexpr int kHeldBytes =
      kRows * (kQk + (kParts == KeyGradients::kValues ? 0 : kV)) * kElementBytes;
  static constexpr int kTerms = key_gradient_shared(kShape, kParts, kElementBytes, kQk, kV) -
                                kShape.stages * kShape.columns * static_cast<int>(sizeof(CudaTerms));
};

// Starts the copies of a tile of queries, their dO and their terms to stage `stage`.
template <class Element, class Sizes, int kQk, int kV>
__device__ __forceinline__ void load_stage(const CudaBackward& params, uint32_t shared, const CudaTile& tile,
                                           const QueryWalk& at, int batch, int stage) {
  constexpr int kColumns = Sizes::kShape.columns, kStageBytes = kColumns * (kQk + kV) * Element::kBytes;
  const int first = tile.q_begin + at.tile() * kColumns, rows = tile.q_end - first;
  load_queries<Element, kColumns, Sizes::kThreads, kQk, kV>(
      params, shared + Sizes::kHeldBytes + stage * kStageBytes, first, rows, at.head, batch);
  const CudaTerms* from = terms_of(params, batch, at.head) + first;
  const int row = static_cast<int>(threadIdx.x), bytes = static_cast<int>(sizeof(CudaTerms));
  if (row < kColumns)
    ptx::cp_async_8(shared + Sizes::kTerms + (stage * kColumns + row) * bytes, from + row,
                    row < rows ? bytes : 0);
}

template <class Element, int kQk, int kV, KeyGradients kParts>
__device__ __forceinline__ void key_gradient(const CudaBackward& params) {
  using Sizes = KeyGradientSizes<Element::kBytes, kQk, kV, kParts>;
  constexpr TileShape kShape = Sizes::kShape;
  constexpr int kRows = Sizes::kRows, kRowTiles = kShape.row_tiles, kColumns = kShape.columns;
  constexpr int kQkBytes = kQk * Element::kBytes, kVBytes = kV * Element::kBytes;
  constexpr int kStageBytes = kColumns * (kQkBytes + kVBytes);
  constexpr bool kKeys = kParts != KeyGradients::kValues, kValues = kParts != KeyGradients::kKeys;
  extern __shared__ __align__(128) char shared[];
  const CudaProblem& p = params.problem;

  const BlockPlace place(blockIdx.x, p.tile_count, p.heads / p.group);
  const CudaTile tile = tile_at(p.tiles, place.tile, kRows, p.queries, p.keys);
  const int first_key = tile.k_begin + tile.first, count = min(kRows, tile.k_end - first_key);
  const int first_head = place.head * p.group;
  const WarpPlace warp{0, warp_id() * kRowTiles * 16};
  const uint32_t keys = ptx::shared_address(shared);
  load_held_keys<Element, Sizes, kQk, kV, kKeys>(p, keys, count, place.batch, first_key, first_head);

  const QueryScan scan{params,
                       tile,
                       place.batch,
                       first_head,
                       first_head + p.group,
                       kColumns,
                       (tile.q_end - tile.q_begin + kColumns - 1) / kColumns,
                       first_key,
                       first_key + count};
  // (16-key tiles, 8-column tiles of K and V, elements of a lane)
  float acc_k[kRowTiles][kKeys ? kQk / 8 : 1][4], acc_v[kRowTiles][kValues ? kV / 8 : 1][4];
  cuda::clear(acc_k);
  cuda::clear(acc_v);
  cuda::stream_tiles<kShape.stages>(
      QueryWalk(scan),
      [&](const QueryWalk& at, int stage) {
        load_stage<Element, Sizes, kQk, kV>(params, keys, tile, at, place.batch, stage);
      },
      [&](const QueryWalk& at, int stage) {
        const int base = Sizes::kHeldBytes + stage * kStageBytes;
        // (16-key tiles, 8-query tiles, elements of a lane)
        float scores[kRowTiles][kColumns / 8][4], gradients[kRowTiles][kColumns / 8][4];
        multiply_tiles<Element, Sizes, kQk, kV, kKeys>(scores, gradients, keys, keys + base, warp);
        const RowMask mask = scan.mask(at.head);
        const bool border =
            !sees_all(scan.hull(mask, at.head, at.tile()), mask.sink_end, scan.key, scan.key_end);
        const CudaTerms* terms = reinterpret_cast<const CudaTerms*>(shared + Sizes::kTerms) +
                                 stage * kColumns + (lane_id() & 3) * 2;
        const int query = tile.q_begin + at.tile() * kColumns + (lane_id() & 3) * 2;
        const int key = first_key + warp.first_row + (lane_id() >> 2);
        weights_and_gradients<kKeys>(
            scores, gradients, p.scale_log2, border,
            [&](int, int n, int e) { return terms[n * 8 + (e & 1)]; },
            [&](int m, int n, int e) {
              const Interval seen = mask.of(min(query + n * 8 + (e & 1), tile.q_end - 1));
              return mask.sees(seen, key + m * 16 + (e >> 1) * 8);
            });
        if constexpr (kValues)
          cuda::multiply_weights<Element, kVBytes>(acc_v, scores, shared + base + kColumns * kQkBytes);
        if constexpr (kKeys) cuda::multiply_weights<Element, kQkBytes>(acc_k, gradients, shared + base);
      });

  const auto out = [&](const CudaRows& rows) {
    return [&](int row) { return row_pointer(rows, place.batch, first_key + row, place.head); };
  };
  if constexpr (kValues) {
    store_sums<Element, Sizes, kV>(shared, acc_v, 1.0f, warp, count, params.dv, out(params.dv));
    __syncthreads();
  }
  if constexpr (kKeys) {
    store_sums<Element, Sizes, kQk>(shared, acc_k, params.scale, warp, count, params.dk, out(params.dk));
    __syncthreads();
  }
}

}  // namespace longreach::interval
