// Scores of blocks from queries and pooled keys on tensor cores, and their choice (NSA, arXiv 2502.11089,
// equations 8 to 10; SeerAttention, arXiv 2410.13276).
//
//   S = scale Q K^T              rows: heads of the list x rows of the lists; columns: windows
//   P = exp(S - largest) / sum   over the windows that the row sees; without softmax P = S
//   votes over the heads, then overlap / stride of windows and blocks, then the choice (choose.cuh)
//
// Work: a block has one list and up to 64 products of rows and heads, four warps of 16. It walks over the
// windows that its last row sees twice: for the largest and the sum of each product's row, kept by lane until
// the end, and for the shares, which pass through shared memory tile by tile and there become votes, then
// parts of the blocks' scores, window after window in order. Scores of a row live in shared memory until its
// list is written; no map of queries x blocks is kept. Heads that do not fit a tile, or read different keys,
// come in chunks, whose statistics are kept and whose votes meet tile by tile; their queries are loaded again
// for each tile of keys, without a buffer ahead.
// Memory traffic: Q once (chunks: with every tile of keys), K twice for each tile of rows (once without
// softmax).
// Limits: head dims in the .cu files, smaller ones are filled up; a row's scores must fit the shared memory
// beside the tiles (plan.h). Rows of q and k are 16-byte aligned (plans copy those that are not).
#pragma once
#include "layers/ops/cuda/fragments.cuh"
#include "layers/ops/selection/cuda/choose.cuh"

namespace longreach::selection {

template <class Element, int kSize>
struct SelectSizes {
  static constexpr int kRowBytes = kSize * Element::kBytes, kColumns = select_columns(Element::kBytes, kSize);
  static constexpr int kKeyBytes = kColumns * kRowBytes;
};

template <int kColumns>
inline constexpr int kVotesPitch = votes_pitch(kColumns);

// Windows that a row scores: always the first ones of its document. row: of the document.
__device__ __forceinline__ int seen_windows(const CudaSelect& p, const CudaScope& scope, int row) {
  const QueryRange queries(p.rule, scope, row);
  if (p.visible == CudaVisible::all) return scope.windows;
  if (p.visible == CudaVisible::started) return min(scope.windows, queries.last / p.stride + 1);
  const int end = p.visible == CudaVisible::complete ? queries.first + 1
                                                     : queries.first / p.rule.key_block * p.rule.key_block;
  return end < p.width ? 0 : min(scope.windows, (end - p.width) / p.stride + 1);
}

// A block's number, taken apart: tiles of rows change fastest, which share keys; the last ones see most and
// begin first.
struct SelectPlace {
  CudaScope scope;
  int row, rows;  // of the document
  int list, batch, windows;

  __device__ __forceinline__ explicit SelectPlace(const CudaSelect& p) {
    const BlockPlace place(blockIdx.x, p.tiles, p.lists);
    const int tile = p.tiles - 1 - place.tile;
    scope = find_scope<&CudaScope::tile>(p.rule, tile);
    row = (tile - scope.tile) * p.tile_rows;
    rows = min(p.tile_rows, scope.rows - row);
    list = place.head;
    batch = place.batch;
    windows = seen_windows(p, scope, row + rows - 1);
  }
  __device__ __forceinline__ int head(const CudaSelect& p, int chunk) const {
    return list * (p.heads / p.lists) + chunk * p.chunk;
  }
};

// Positions of a walk: tiles of windows, or chunks of heads of each.
struct CountWalk {
  int position, count;
  __device__ __forceinline__ bool valid() const { return position < count; }
  __device__ __forceinline__ void advance() { ++position; }
};

// Starts the copy of the queries of a chunk: row after row of the lists, each with its heads.
template <class Element, int kSize>
__device__ __forceinline__ void load_queries(const CudaSelect& p, const SelectPlace& place, int chunk,
                                             uint32_t to) {
  using Sizes = SelectSizes<Element, kSize>;
  const int head = place.head(p, chunk), row = place.scope.row + place.row;
  cuda::gather_tile<kTileRows, Sizes::kRowBytes, kSelectThreads>(
      to, place.rows * p.chunk, p.q.size * Element::kBytes,
      [&](int r) { return row_pointer(p.q, place.batch, row + r / p.chunk, head + r % p.chunk); });
}

// Starts the copy of a tile of windows of the chunk's key head.
template <class Element, int kSize>
__device__ __forceinline__ void load_windows(const CudaSelect& p, const SelectPlace& place, int chunk,
                                             int tile, uint32_t to) {
  using Sizes = SelectSizes<Element, kSize>;
  const int first = tile * Sizes::kColumns, head = place.head(p, chunk) * p.key_heads / p.heads;
  cuda::load_tile<Sizes::kColumns, Sizes::kRowBytes, kSelectThreads>(
      to, place.windows - first, p.k.size * Element::kBytes,
      row_pointer(p.k, place.batch, place.scope.first_window + first, head), p.k.token);
}

// The two products' rows of this lane, and how many windows each sees; 0 where there is no row.
struct LaneRows {
  int row[2], seen[2];
  int pitch;  // rows of a chunk

  __device__ __forceinline__ LaneRows(const CudaSelect& p, const SelectPlace& place)
      : pitch(p.tile_rows * p.chunk) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      row[h] = warp_id() * 16 + h * 8 + (lane_id() >> 2);
      const int of_tile = row[h] / p.chunk;
      seen[h] = of_tile < place.rows ? seen_windows(p, place.scope, place.row + of_tile) : 0;
    }
  }
};

// Window of element `e` of column tile `n` of this lane's accumulators, in its tile.
__device__ __forceinline__ int column_of(int n, int e) { return n * 8 + (lane_id() & 3) * 2 + (e & 1); }

template <class Element, int kSize>
__device__ __forceinline__ void multiply(float (&scores)[1][select_columns(Element::kBytes, kSize) / 8][4],
                                         uint32_t queries, uint32_t keys) {
  constexpr int kRowBytes = SelectSizes<Element, kSize>::kRowBytes;
  cuda::clear(scores);
  cuda::multiply_rows<Element, kRowBytes>(
      scores, cuda::SharedRows<kRowBytes>{queries + warp_id() * 16 * kRowBytes}, keys);
}

// Largest logit and sum of powers of one row, of the columns of one lane; base 2. Windows that the row sees
// not count as -inf.
struct LaneSoftmax {
  float most = -INFINITY, sum = 0.0f;

  template <int kColumnTiles>
  __device__ __forceinline__ void add(float (&scores)[1][kColumnTiles][4], int half, float scale, int seen) {
    float found = most;
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n)
#pragma unroll
      for (int e = half * 2; e < half * 2 + 2; ++e) {
        float& score = scores[0][n][e];
        score = column_of(n, e) < seen ? score * scale : -INFINITY;
        found = fmaxf(found, score);
      }
    const float base = found == -INFINITY ? 0.0f : found;
    sum *= ptx::exp2_approx(most - base);
    most = found;
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n)
#pragma unroll
      for (int e = half * 2; e < half * 2 + 2; ++e) sum += ptx::exp2_approx(scores[0][n][e] - base);
  }
  // Joins the four lanes of a row.
  __device__ __forceinline__ void join() {
#pragma unroll
    for (int step = 1; step < 4; step <<= 1) {
      const float other = __shfl_xor_sync(kAllLanes, most, step);
      const float larger = fmaxf(most, other), base = larger == -INFINITY ? 0.0f : larger;
      sum *= ptx::exp2_approx(most - base);
      sum += __shfl_xor_sync(kAllLanes, sum, step);
      most = larger;
    }
  }
};

// The first walk: largest logit and 1 / sum of powers of each row of each chunk. Leaves the last chunk's
// queries.
template <class Element, int kSize>
__device__ __forceinline__ void find_statistics(const CudaSelect& p, const SelectPlace& place, int tiles,
                                                uint32_t queries, uint32_t keys, float2* statistics) {
  using Sizes = SelectSizes<Element, kSize>;
  const LaneRows rows(p, place);
#pragma unroll 1
  for (int chunk = 0; chunk < p.chunks; ++chunk) {
    load_queries<Element, kSize>(p, place, chunk, queries);
    ptx::cp_async_commit();
    LaneSoftmax softmax[2];
    cuda::stream_tiles<2>(
        CountWalk{0, tiles},
        [&](const CountWalk& at, int stage) {
          load_windows<Element, kSize>(p, place, chunk, at.position, keys + stage * Sizes::kKeyBytes);
        },
        [&](const CountWalk& at, int stage) {
          float scores[1][Sizes::kColumns / 8][4];  // (1, 8-window tiles, elements of a lane)
          multiply<Element, kSize>(scores, queries, keys + stage * Sizes::kKeyBytes);
#pragma unroll
          for (int h = 0; h < 2; ++h)
            softmax[h].add(scores, h, p.scale, rows.seen[h] - at.position * Sizes::kColumns);
        });
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      softmax[h].join();
      if ((lane_id() & 3) == 0 && rows.seen[h] > 0)
        statistics[chunk * rows.pitch + rows.row[h]] = make_float2(softmax[h].most, 1.0f / softmax[h].sum);
    }
  }
}

// Shares (or logits) of a tile of windows, to shared memory; nothing, or -inf, for windows that a row sees
// not.
template <bool kSoftmax, int kColumns>
__device__ __forceinline__ void stage_weights(const LaneRows& rows, float scale,
                                              const float (&scores)[1][kColumns / 8][4], int first_window,
                                              const float2* statistics, float* weights) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float2 of_row = make_float2(0.0f, 1.0f);
    if (kSoftmax && rows.seen[h] > 0) of_row = statistics[rows.row[h]];
    const int seen = rows.seen[h] - first_window;
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
      float x[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float logit = scores[0][n][h * 2 + e] * scale;
        const float weight = kSoftmax ? ptx::exp2_approx(logit - of_row.x) * of_row.y : logit;
        x[e] = column_of(n, e) < seen ? weight : kSoftmax ? 0.0f : -INFINITY;
      }
      ptx::store_shared_8(weights + staged<kColumns>(rows.row[h], column_of(n, 0)), x[0], x[1]);
    }
  }
}

__device__ __forceinline__ float join_votes(bool largest, float a, float b) {
  if (!largest) return a + b;
  return b > a || b != b ? b : a;
}

// The place of a window's vote in its tile's row.
__device__ __forceinline__ int vote_place(int column) { return column + column / 32; }

// Votes of a tile of windows, over the heads of a chunk and those before it; where windows are blocks, these
// are the scores.
template <int kColumns>
__device__ __forceinline__ void collect_votes(const CudaSelect& p, const SelectPlace& place, int chunk,
                                              int first_window, const float* weights, float* votes,
                                              float* scores) {
  const float share = chunk + 1 == p.chunks ? p.share : 1.0f;
  const bool largest = p.largest;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < place.rows * kColumns; i += kSelectThreads) {
    const int row = i / kColumns, column = i % kColumns;
    if (first_window + column >= place.windows) continue;
    float* to = p.same ? scores + row * p.pitch + first_window + column
                       : votes + row * kVotesPitch<kColumns> + vote_place(column);
    float vote = weights[staged<kColumns>(row * p.chunk, column)];
#pragma unroll 4
    for (int head = 1; head < p.chunk; ++head)
      vote = join_votes(largest, vote, weights[staged<kColumns>(row * p.chunk + head, column)]);
    if (chunk > 0) vote = join_votes(largest, *to, vote);
    *to = vote * share;
  }
}

// scores += overlap / stride times votes, for the blocks that the tile's windows touch: a lane has a block.
template <int kColumns>
__device__ __forceinline__ void add_overlaps(const CudaSelect& p, const SelectPlace& place, int first_window,
                                             const float* votes, float* scores) {
  const int end_window = min(first_window + kColumns, place.windows), key_block = p.rule.key_block;
  const int low = first_window * p.stride / key_block,
            high = min(((end_window - 1) * p.stride + p.width - 1) / key_block + 1, place.scope.blocks);
  const float stride = static_cast<float>(p.stride);
#pragma unroll 1
  for (int row = warp_id(); row < place.rows; row += kSelectThreads / 32) {
    const float* of_row = votes + row * kVotesPitch<kColumns>;
#pragma unroll 1
    for (int block = low + lane_id(); block < high; block += 32) {
      const int begin = block * key_block, end = begin + key_block;
      const int from = max(begin < p.width ? 0 : (begin - p.width) / p.stride + 1, first_window),
                to = min((end + p.stride - 1) / p.stride, end_window);
      float sum = scores[row * p.pitch + block];
#pragma unroll 1
      for (int window = from; window < to; ++window) {
        const int overlap = min(window * p.stride + p.width, end) - max(window * p.stride, begin);
        sum = fmaf(static_cast<float>(overlap) / stride, of_row[vote_place(window - first_window)], sum);
      }
      scores[row * p.pitch + block] = sum;
    }
  }
}

// The second walk: scores [rows, pitch] of all blocks that some window touches.
template <class Element, int kSize>
__device__ __forceinline__ void score_blocks(const CudaSelect& p, const SelectPlace& place, int tiles,
                                             char* shared) {
  using Sizes = SelectSizes<Element, kSize>;
  const SelectParts& parts = p.parts;
  const uint32_t queries = ptx::shared_address(shared), keys = queries + parts.keys;
  float* weights = reinterpret_cast<float*>(shared + parts.weights);
  const float2* statistics = reinterpret_cast<const float2*>(shared + parts.statistics);
  float *votes = reinterpret_cast<float*>(shared + parts.votes),
        *scores = reinterpret_cast<float*>(shared + parts.scores);
  const LaneRows rows(p, place);
  cuda::stream_tiles<2>(
      CountWalk{0, tiles * p.chunks},
      [&](const CountWalk& at, int stage) {
        if (p.chunks == 1)
          load_windows<Element, kSize>(p, place, 0, at.position, keys + stage * Sizes::kKeyBytes);
      },
      [&](const CountWalk& at, int stage) {
        const int tile = at.position / p.chunks, chunk = at.position % p.chunks;
        const int first = tile * Sizes::kColumns;
        const uint32_t own_keys = keys + stage * Sizes::kKeyBytes;
        if (p.chunks > 1) {
          load_windows<Element, kSize>(p, place, chunk, tile, own_keys);
          load_queries<Element, kSize>(p, place, chunk, queries);
          ptx::cp_async_commit();
          ptx::cp_async_wait<0>();
          __syncthreads();
        }
        float acc[1][Sizes::kColumns / 8][4];  // (1, 8-window tiles, elements of a lane)
        multiply<Element, kSize>(acc, queries, own_keys);
        if (p.softmax) {
          stage_weights<true, Sizes::kColumns>(rows, p.scale, acc, first, statistics + chunk * rows.pitch,
                                               weights);
        } else {
          stage_weights<false, Sizes::kColumns>(rows, p.scale, acc, first, nullptr, weights);
        }
        __syncthreads();
        collect_votes<Sizes::kColumns>(p, place, chunk, first, weights, votes, scores);
        if (p.same || chunk + 1 < p.chunks) return;
        __syncthreads();
        add_overlaps<Sizes::kColumns>(p, place, first, votes, scores);
      });
}

template <class Element, int kSize>
__device__ __forceinline__ void select(const CudaSelect& p) {
  using Sizes = SelectSizes<Element, kSize>;
  extern __shared__ __align__(128) char shared[];
  const SelectPlace place(p);
  const SelectParts& parts = p.parts;
  const int tiles = (place.windows + Sizes::kColumns - 1) / Sizes::kColumns;
  const uint32_t queries = ptx::shared_address(shared);
  float* scores = reinterpret_cast<float*>(shared + parts.scores);
  // Blocks that no window touches.
  const float nothing = p.softmax ? 0.0f : -INFINITY;
  for (int i = static_cast<int>(threadIdx.x); i < place.rows * p.pitch; i += kSelectThreads)
    scores[i] = nothing;
  if (p.softmax) {
    find_statistics<Element, kSize>(p, place, tiles, queries, queries + parts.keys,
                                    reinterpret_cast<float2*>(shared + parts.statistics));
  } else if (p.chunks == 1) {
    load_queries<Element, kSize>(p, place, 0, queries);
    ptx::cp_async_commit();
  }
  score_blocks<Element, kSize>(p, place, tiles, shared);

#pragma unroll 1
  for (int row = warp_id(); row < place.rows; row += kSelectThreads / 32) {
    const int of_document = place.row + row;
    const RowLimits limits(p.rule, place.scope, of_document);
    float* of_row = scores + row * p.pitch;
    const int64_t index = (static_cast<int64_t>(place.batch) * p.lists + place.list) * p.rule.rows +
                          place.scope.row + of_document;
    if (p.scores != nullptr) {
      float* to = p.scores + index * p.blocks;
      for (int block = lane_id(); block < p.blocks; block += 32)
        to[block] = block < limits.candidates ? of_row[block] : -INFINITY;
    }
    choose_row(p.rule, limits, reinterpret_cast<uint32_t*>(of_row), index);
  }
}

}  // namespace longreach::selection
