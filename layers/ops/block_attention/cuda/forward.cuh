// Forward pass of block attention on tensor cores: FlashAttention-2 (arXiv 2307.08691) over the listed key
// blocks, a whole group of heads at a time (Native Sparse Attention, arXiv 2502.11089).
//
//   S = Q K^T    P = exp(scale S - running maximum)    O = P V / sum P    lse = maximum + log sum P
//
// Work: a block has a tile of one row of the lists, queries times the heads that share its list, key head and
// value head (all heads of one query after another), and walks over the keys that the list names, in pieces
// of 16: small key blocks fill a tile together, large ones take several. Where 16 rows suffice, the block's
// warps share out the keys of each tile and join at the end. Q stays in shared memory (in registers where
// they suffice), K and V stream through two buffers by cp.async. P is rounded to the input dtype between the
// two products; everything else is fp32. Border tiles alone are masked.
// Memory traffic: Q and O once, the listed K and V once a tile. Rows of q, k and v are 16-byte aligned (plans
// copy those that are not).
#pragma once
#include "layers/ops/block_attention/cuda/lists.cuh"
#include "layers/ops/cuda/attention/outputs.cuh"

namespace longreach::block {

// The sizes of one kernel. (A constant of a class: device code may not call the functions that give the
// shapes.)
template <int kTileRows, int kElementBytes, int kQk, int kV>
struct ForwardSizes {
  static constexpr TileShape kShape = forward_shape(kTileRows, kElementBytes, kQk, kV);
  static constexpr int kRows = kShape.rows(), kThreads = kShape.threads();
  static constexpr int kMeeting = forward_bytes(kShape, kElementBytes, kQk, kV) -
                                  (kShape.key_warps > 1 ? kRows * kShape.key_warps * 8 : 0);
};

template <int kRowTiles, int kColumnTiles, class Pieces>
__device__ __forceinline__ void mask_scores(float (&scores)[kRowTiles][kColumnTiles][4], const Pieces& pieces,
                                            const RowLimits<kRowTiles>& rows) {
#pragma unroll
  for (int n = 0; n < kColumnTiles; ++n)
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        scores[m][n][e] = pieces.of(n, e) < rows.limit[m][e >> 1] ? scores[m][n][e] : -INFINITY;
}

template <class Element, int kQk, int kV, int kTileRows>
__device__ __forceinline__ void forward(const CudaForward& params) {
  using Sizes = ForwardSizes<kTileRows, Element::kBytes, kQk, kV>;
  constexpr TileShape kShape = Sizes::kShape;
  constexpr int kRows = Sizes::kRows, kThreads = Sizes::kThreads, kRowTiles = kShape.row_tiles;
  constexpr int kKeyWarps = kShape.key_warps, kColumns = kShape.columns, kOwn = kColumns / kKeyWarps;
  constexpr int kQkBytes = kQk * Element::kBytes, kVBytes = kV * Element::kBytes;
  constexpr int kHeldBytes = kRows * kQkBytes, kStageBytes = kColumns * (kQkBytes + kVBytes);
  using Walk = ListWalk<kColumns / kPiece>;
  using Queries = QueryRows<Element, kQk, kRowTiles>;
  extern __shared__ __align__(128) char shared[];
  const CudaProblem& p = params.problem;

  const QueryPlace place(p, kRows);
  const ListRow list_row(p.lists, place.row);
  const RowPlaces<true> places(list_row.tile(place.first), kRows, place.head_group, p.group);
  if (places.count <= 0) return;  // the last row of a document may be short
  const KeyLimit limits(p.lists, list_row.document);
  const WarpPlace warp = warp_place<Sizes>();

  const uint32_t queries = ptx::shared_address(shared);
  const auto gather = [&](const CudaRows& rows) {
    return [&](int row) { return row_pointer(rows, place.batch, places.query(row), places.head(row)); };
  };
  cuda::gather_tile<kRows, kQkBytes, kThreads>(queries, places.count, p.q.size * Element::kBytes,
                                               gather(p.q));
  ptx::cp_async_commit();
  if (p.negate) negate_tile<Element, kHeldBytes, kThreads>(shared);

  const int head = places.first_head;
  const ListedKeys<Element, Sizes, kQk, kV> listed(p, list_row.document, place.batch, head,
                                                   queries + kHeldBytes);
  const RowLimits<kRowTiles> row_limits(limits, places, warp.first_row);
  const int seen_by_all = limits.of(places.query(0));
  const Walk walk(p.lists, list_of(p.lists, place.batch, head * p.lists.heads / p.heads, place.row),
                  limits.of(places.query(places.count - 1)));

  OutputRows<Element, Sizes, kV> outputs(warp);
  Queries query_rows;
  bool first_tile = true;
  cuda::stream_tiles<kShape.stages>(
      walk, [&](const Walk& at, int stage) { listed.load(at, stage); },
      [&](const Walk& at, int stage) {
        const int base = kHeldBytes + stage * kStageBytes, own = warp.key_warp * kOwn;
        float scores[kRowTiles][kOwn / 8][4];  // (16-row tiles, 8-key tiles of a warp, elements of a lane)
        const uint32_t own_queries = queries + warp.first_row * kQkBytes;
        if constexpr (Queries::kHold)
          if (first_tile) query_rows.load(own_queries);
        first_tile = false;
        query_rows.multiply(scores, own_queries, queries + base + own * kQkBytes);
        if (at.end() > seen_by_all)
          mask_scores(scores, OwnPieces<kKeyWarps, kColumns / kPiece>(at, warp.key_warp), row_limits);
        outputs.softmax.step(scores, outputs.acc, p.scale_log2);
        cuda::multiply_weights<Element, kVBytes>(outputs.acc, scores,
                                                 shared + base + kColumns * kQkBytes + own * kVBytes);
      });

  float* staging = reinterpret_cast<float*>(shared);
  outputs.finish(staging, reinterpret_cast<float2*>(shared + Sizes::kMeeting), p.scale_log2);
  outputs.store(staging, places.count, params.o, gather(params.o), [&](int row) {
    const int64_t head_row = static_cast<int64_t>(place.batch) * p.heads + places.head(row);
    return params.lse + head_row * p.lists.queries + places.query(row);
  });
}

}  // namespace longreach::block
