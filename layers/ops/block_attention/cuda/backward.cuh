// Backward pass of block attention on tensor cores (FlashAttention-2, arXiv 2307.08691), without atomics on
// sums: every gradient is summed by one block in a fixed order.
//
//   P = exp(scale Q K^T - lse)    dP = dO V^T    dS = P (dP - delta)    delta = dO . O - d(lse)
//   dQ = scale dS K               dK = scale dS^T Q               dV = P^T dO
//
// Work: query_gradient is cut as the forward pass. key_gradient has a tile of keys of one block and walks
// over the rows that list the block (transpose.cuh), head group after head group, with S^T = K Q^T: their
// queries and heads, one after another, fill tiles of columns without gaps, so that rows of one token share a
// tile. In both kernels the second product takes P or dS from registers. lse and delta come from interval
// attention's row_terms. The held tiles lie in shared memory, the streamed ones have two buffers. P and dS
// are rounded to the input dtype between products; all sums are fp32.
#pragma once
#include "layers/ops/block_attention/cuda/lists.cuh"
#include "layers/ops/cuda/attention/gradients.cuh"

namespace longreach::block {

template <int kTileRows, int kElementBytes, int kQk, int kV>
struct QueryGradientSizes {
  static constexpr TileShape kShape = query_gradient_shape(kTileRows, kElementBytes, kQk, kV);
  static constexpr int kRows = kShape.rows(), kThreads = kShape.threads();
};

template <class Element, int kQk, int kV, int kTileRows>
__device__ __forceinline__ void query_gradient(const CudaBackward& params) {
  using Sizes = QueryGradientSizes<kTileRows, Element::kBytes, kQk, kV>;
  constexpr TileShape kShape = Sizes::kShape;
  constexpr int kRows = Sizes::kRows, kThreads = Sizes::kThreads, kRowTiles = kShape.row_tiles;
  constexpr int kKeyWarps = kShape.key_warps, kColumns = kShape.columns, kOwn = kColumns / kKeyWarps;
  constexpr int kQkBytes = kQk * Element::kBytes, kVBytes = kV * Element::kBytes;
  constexpr int kHeldBytes = kRows * (kQkBytes + kVBytes), kStageBytes = kColumns * (kQkBytes + kVBytes);
  using Walk = ListWalk<kColumns / kPiece>;
  extern __shared__ __align__(128) char shared[];
  const CudaProblem& p = params.problem;

  const QueryPlace place(p, kRows);
  const ListRow list_row(p.lists, place.row);
  const RowPlaces<true> places(list_row.tile(place.first), kRows, place.head_group, p.group);
  if (places.count <= 0) return;
  const KeyLimit limits(p.lists, list_row.document);
  const WarpPlace warp = warp_place<Sizes>();

  const uint32_t queries = ptx::shared_address(shared), d_outputs = queries + kRows * kQkBytes;
  const auto gather = [&](const CudaRows& rows) {
    return [&](int row) { return row_pointer(rows, place.batch, places.query(row), places.head(row)); };
  };
  cuda::gather_tile<kRows, kQkBytes, kThreads>(queries, places.count, p.q.size * Element::kBytes,
                                               gather(p.q));
  cuda::gather_tile<kRows, kVBytes, kThreads>(d_outputs, places.count, p.v.size * Element::kBytes,
                                              gather(params.d_o));
  ptx::cp_async_commit();
  CudaTerms terms[kRowTiles][2];  // (16-row tiles, rows of a lane)
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = min(warp.first_row + m * 16 + h * 8 + (lane_id() >> 2), places.count - 1);
      const int64_t head_row = static_cast<int64_t>(place.batch) * p.heads + places.head(row);
      terms[m][h] = params.terms[head_row * p.lists.queries + places.query(row)];
    }

  const int head = places.first_head;
  const ListedKeys<Element, Sizes, kQk, kV> listed(p, list_row.document, place.batch, head,
                                                   queries + kHeldBytes);
  const RowLimits<kRowTiles> row_limits(limits, places, warp.first_row);
  const int seen_by_all = limits.of(places.query(0));
  const Walk walk(p.lists, list_of(p.lists, place.batch, head * p.lists.heads / p.heads, place.row),
                  limits.of(places.query(places.count - 1)));
  float acc[kRowTiles][kQk / 8][4];  // (16-row tiles, 8-column tiles of Q, elements of a lane)
  cuda::clear(acc);
  cuda::stream_tiles<kShape.stages>(
      walk, [&](const Walk& at, int stage) { listed.load(at, stage); },
      [&](const Walk& at, int stage) {
        const int base = kHeldBytes + stage * kStageBytes, own = warp.key_warp * kOwn;
        // (16-row tiles, 8-key tiles of a warp, elements of a lane)
        float scores[kRowTiles][kOwn / 8][4], gradients[kRowTiles][kOwn / 8][4];
        multiply_tiles<Element, Sizes, kQk, kV, true>(scores, gradients, queries, queries + base, warp);
        const OwnPieces<kKeyWarps, kColumns / kPiece> pieces(at, warp.key_warp);
        weights_and_gradients<true>(
            scores, gradients, p.scale_log2, at.end() > seen_by_all,
            [&](int m, int, int e) { return terms[m][e >> 1]; },
            [&](int m, int n, int e) { return pieces.of(n, e) < row_limits.limit[m][e >> 1]; });
        cuda::multiply_weights<Element, kQkBytes>(acc, gradients, shared + base + own * kQkBytes);
      });

  store_sums<Element, Sizes, kQk>(shared, acc, params.scale, warp, places.count, params.dq,
                                  gather(params.dq));
}

// The rows that list a block, head group after head group, as columns of tiles: entry, query and head,
// fastest last.
struct ColumnWalk {
  const CudaBackward* params;
  const int32_t* starts;
  int group, end_group, columns, tile, tiles, begin, ring;

  __device__ __forceinline__ ColumnWalk(const CudaBackward& p, int first_head, int batch, int block,
                                        int tile_columns)
      : params(&p),
        starts(p.starts +
               static_cast<int64_t>(p.problem.lists.batches > 1 ? batch : 0) * p.problem.lists.heads *
                   (p.problem.lists.blocks + 1) +
               block),
        group(first_head / p.problem.group - 1),
        end_group((first_head + p.pair_group) / p.problem.group),
        columns(tile_columns),
        tile(0),
        tiles(1),
        begin(0),
        ring(-1) {
    advance();
  }
  __device__ __forceinline__ bool valid() const { return group < end_group; }
  __device__ __forceinline__ void advance() {
    ring = (ring + 1) & (kRing - 1);
    ++tile;
#pragma unroll 1
    while (tile >= tiles && ++group < end_group) {
      const int32_t* at = starts + static_cast<int64_t>(list()) * (params->problem.lists.blocks + 1);
      begin = at[0];
      tile = 0;
      count_ = (at[1] - begin) * row_columns();
      tiles = (count_ + columns - 1) / columns;
    }
  }
  // Number `index` of this tile; a query of -1 where there is none.
  __device__ __forceinline__ QueryColumn column(int index, int batch, const CudaDocument& document) const {
    const CudaProblem& p = params->problem;
    const int number = tile * columns + index;
    if (number >= count_) return {-1, 0};
    const int entry = number / row_columns(), inside = number % row_columns();
    const int64_t list_number =
        static_cast<int64_t>(p.lists.batches > 1 ? batch : 0) * p.lists.heads + list();
    const int row = params->rows[list_number * p.lists.rows * p.lists.entries + begin + entry];
    const int query = document.q_begin + (row - document.row_begin) * p.lists.query_block + inside / p.group;
    return {query < document.q_end ? query : -1, group * p.group + inside % p.group};
  }

 private:
  __device__ __forceinline__ int list() const {
    return group * params->problem.group * params->problem.lists.heads / params->problem.heads;
  }
  __device__ __forceinline__ int row_columns() const {
    return params->problem.lists.query_block * params->problem.group;
  }

  int count_;
};

// Starts the copies of the rows of queries that columns name; zeros where there is none.
template <int kColumns, int kRowBytes, int kThreads, int kElementBytes>
__device__ __forceinline__ void load_columns(uint32_t tile, const QueryColumn* columns, const CudaRows& rows,
                                             int batch) {
  using Layout = cuda::Tile<kRowBytes>;
#pragma unroll 1
  for (int index = static_cast<int>(threadIdx.x); index < kColumns * Layout::kChunks; index += kThreads) {
    const int row = index / Layout::kChunks, chunk = index % Layout::kChunks;
    const QueryColumn column = columns[row];
    const int bytes = column.query >= 0 ? min(max(rows.size * kElementBytes - chunk * 16, 0), 16) : 0;
    const char* source = row_pointer(rows, batch, max(column.query, 0), column.head);
    ptx::cp_async_16(tile + Layout::offset(row, chunk), source + (bytes > 0 ? chunk * 16 : 0), bytes);
  }
}

template <int kTileRows, int kElementBytes, int kQk, int kV>
struct KeyGradientSizes {
  static constexpr TileShape kShape = key_gradient_shape(kTileRows, kElementBytes, kQk, kV);
  static constexpr int kRows = kShape.rows(), kThreads = kShape.threads();
  static constexpr int kRingOffset = key_gradient_bytes(kShape, kElementBytes, kQk, kV) -
                                     kRing * kShape.columns * static_cast<int>(sizeof(QueryColumn));
  static constexpr int kTerms =
      kRingOffset - kShape.stages * kShape.columns * static_cast<int>(sizeof(CudaTerms));
};

// Starts the copies of a tile of queries, their dO and their terms to stage `stage`.
template <class Element, class Sizes, int kQk, int kV>
__device__ __forceinline__ void load_stage(const CudaBackward& params, uint32_t shared,
                                           const QueryColumn* columns, int batch, int stage) {
  constexpr int kColumns = Sizes::kShape.columns, kThreads = Sizes::kThreads;
  constexpr int kQkBytes = kQk * Element::kBytes, kVBytes = kV * Element::kBytes;
  const CudaProblem& p = params.problem;
  const uint32_t to = shared + (Sizes::kRows + stage * kColumns) * (kQkBytes + kVBytes);
  load_columns<kColumns, kQkBytes, kThreads, Element::kBytes>(to, columns, p.q, batch);
  load_columns<kColumns, kVBytes, kThreads, Element::kBytes>(to + kColumns * kQkBytes, columns, params.d_o,
                                                             batch);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < kColumns) {
    const QueryColumn column = columns[thread];
    const int bytes = static_cast<int>(sizeof(CudaTerms));
    const int64_t head_row = static_cast<int64_t>(batch) * p.heads + column.head;
    ptx::cp_async_8(shared + Sizes::kTerms + (stage * kColumns + thread) * bytes,
                    params.terms + head_row * p.lists.queries + max(column.query, 0),
                    column.query >= 0 ? bytes : 0);
  }
}

// The keys of a block of key_gradient: some of one block of the lists, for the query heads that share them.
// Under a causal mask the first blocks are listed most often: they begin first.
struct KeyPlace : BlockPlace {
  int block;
  CudaDocument document;
  KeyLimit limits;
  int first, count;  // within the document

  __device__ __forceinline__ KeyPlace(const CudaBackward& params, const CudaProblem& p, int tile_rows)
      : BlockPlace(blockIdx.x, p.lists.blocks * params.block_tiles, p.heads / params.pair_group),
        block(tile / params.block_tiles),
        document(find_document<&CudaDocument::block_begin>(p.lists, block)),
        limits(p.lists, document) {
    const int inside = tile % params.block_tiles * tile_rows;
    first = (block - document.block_begin) * p.lists.key_block + inside;
    count = min(min(tile_rows, p.lists.key_block - inside), limits.keys - first);
  }
  // Of the first key, in the whole batch.
  __device__ __forceinline__ int64_t token() const { return static_cast<int64_t>(document.k_begin) + first; }
};

template <class Element, int kQk, int kV, int kTileRows, KeyGradients kParts = KeyGradients::kBoth>
__device__ __forceinline__ void key_gradient(const CudaBackward& params) {
  using Sizes = KeyGradientSizes<kTileRows, Element::kBytes, kQk, kV>;
  constexpr TileShape kShape = Sizes::kShape;
  constexpr int kRows = Sizes::kRows, kRowTiles = kShape.row_tiles;
  constexpr int kKeyWarps = kShape.key_warps, kColumns = kShape.columns, kOwn = kColumns / kKeyWarps;
  constexpr int kQkBytes = kQk * Element::kBytes, kVBytes = kV * Element::kBytes;
  constexpr int kHeldBytes = kRows * (kQkBytes + kVBytes), kStageBytes = kColumns * (kQkBytes + kVBytes);
  constexpr bool kKeys = kParts != KeyGradients::kValues, kValues = kParts != KeyGradients::kKeys;
  extern __shared__ __align__(128) char shared[];
  const CudaProblem& p = params.problem;

  const KeyPlace place(params, p, kRows);
  if (place.count <= 0) return;  // the last block of a document may be short
  const int first_head = place.head * params.pair_group;
  const WarpPlace warp = warp_place<Sizes>();
  const uint32_t keys = ptx::shared_address(shared);
  load_held_keys<Element, Sizes, kQk, kV, kKeys>(p, keys, place.count, place.batch, place.token(),
                                                 first_head);

  QueryColumn* ring = reinterpret_cast<QueryColumn*>(shared + Sizes::kRingOffset);
  const int thread = static_cast<int>(threadIdx.x);
  const auto write_columns = [&](const ColumnWalk& at) {
    if (at.valid() && thread < kColumns)
      ring[at.ring * kColumns + thread] = at.column(thread, place.batch, place.document);
  };
  const ColumnWalk walk(params, first_head, place.batch, place.block, kColumns);
  write_columns(walk);
  __syncthreads();

  // (16-key tiles, 8-column tiles of K and V, elements of a lane)
  float acc_k[kRowTiles][kKeys ? kQk / 8 : 1][4], acc_v[kRowTiles][kValues ? kV / 8 : 1][4];
  cuda::clear(acc_k);
  cuda::clear(acc_v);
  cuda::stream_tiles<kShape.stages>(
      walk,
      [&](const ColumnWalk& at, int stage) {
        load_stage<Element, Sizes, kQk, kV>(params, keys, ring + at.ring * kColumns, place.batch, stage);
        // The next tile's columns: read after the next barrier, when nobody needs those of four tiles ago.
        ColumnWalk next = at;
        next.advance();
        write_columns(next);
      },
      [&](const ColumnWalk& at, int stage) {
        const int base = kHeldBytes + stage * kStageBytes, own = warp.key_warp * kOwn;
        // (16-key tiles, 8-query tiles of a warp, elements of a lane)
        float scores[kRowTiles][kOwn / 8][4], gradients[kRowTiles][kOwn / 8][4];
        multiply_tiles<Element, Sizes, kQk, kV, kKeys>(scores, gradients, keys, keys + base, warp);
        const QueryColumn* columns = ring + at.ring * kColumns;
        const CudaTerms* terms =
            reinterpret_cast<const CudaTerms*>(shared + Sizes::kTerms) + stage * kColumns;
        const int column = own + (lane_id() & 3) * 2, key = place.first + warp.first_row + (lane_id() >> 2);
        // Queries rise from column to column.
        const bool border = p.lists.causal && place.limits.of(columns[0].query) < place.first + place.count;
        weights_and_gradients<kKeys>(
            scores, gradients, p.scale_log2, border,
            [&](int, int n, int e) { return terms[column + n * 8 + (e & 1)]; },
            [&](int m, int n, int e) {
              return key + m * 16 + (e >> 1) * 8 < place.limits.of(columns[column + n * 8 + (e & 1)].query);
            });
        if constexpr (kValues)
          cuda::multiply_weights<Element, kVBytes>(acc_v, scores,
                                                   shared + base + kColumns * kQkBytes + own * kVBytes);
        if constexpr (kKeys)
          cuda::multiply_weights<Element, kQkBytes>(acc_k, gradients, shared + base + own * kQkBytes);
      });

  const auto out = [&](const CudaRows& rows) {
    return [&](int row) { return row_pointer(rows, place.batch, place.token() + row, place.head); };
  };
  if constexpr (kValues)
    store_sums<Element, Sizes, kV>(shared, acc_v, 1.0f, warp, place.count, params.dv, out(params.dv));
  if constexpr (kKeys && kValues) __syncthreads();
  if constexpr (kKeys)
    store_sums<Element, Sizes, kQk>(shared, acc_k, params.scale, warp, place.count, params.dk,
                                    out(params.dk));
}

}  // namespace longreach::block
