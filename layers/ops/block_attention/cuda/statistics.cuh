// Largest weight and sum of weights of each listed block: a second sweep over the listed keys with the final
// lse, so that no scratch of the size of the scores, or of queries times blocks, is kept.
//
//   P = exp(scale Q K^T - lse)    largest and sum over a row of the lists and a block, over one head or all
//                                 of a list
//
// Work: a block has one row of the lists and one owner (a head or a list). It takes the owner's queries 64 at
// a time, each time over the listed keys in tiles of pieces (lists.cuh). The warps' largest values and sums
// of each piece meet in shared memory; one thread adds them up in order and writes an entry when the next one
// begins. From the second 64 queries on it adds to what it wrote before: one thread alone has an entry, so
// nothing is lost and the order is fixed.
#pragma once
#include "layers/ops/block_attention/cuda/lists.cuh"

namespace longreach::block {

template <int kElementBytes, int kQk>
struct StatisticsSizes {
  static constexpr TileShape kShape = statistics_shape(kElementBytes, kQk);
  static constexpr int kRows = kShape.rows(), kThreads = kShape.threads();
  static constexpr int kPieces = kShape.columns / kPiece, kWarps = kShape.row_warps;
  static constexpr int kMeeting = (kRows + kShape.stages * kShape.columns) * kQk * kElementBytes;
};

// Entries of one owner and row, written in order by one thread.
struct EntryWriter {
  float *block_max, *block_sum;
  bool adds;
  int entry;
  float2 value;

  __device__ __forceinline__ void add(int to, float2 x) {
    if (to != entry) {
      flush();
      entry = to;
      value = make_float2(0.0f, 0.0f);
    }
    value = make_float2(fmaxf(value.x, x.x), value.y + x.y);
  }
  __device__ __forceinline__ void flush() const {
    if (entry < 0) return;
    float2 all = value;
    if (adds) all = make_float2(fmaxf(block_max[entry], all.x), block_sum[entry] + all.y);
    block_max[entry] = all.y != all.y ? all.y : all.x;  // fmaxf drops NaN, and sums keep it
    block_sum[entry] = all.y;
  }
};

// Weights of one piece of 16 keys: the largest and the sum over all lanes of the warp.
template <int kColumnTiles, class Sees>
__device__ __forceinline__ float2 piece_statistics(const float (&scores)[1][kColumnTiles][4], int piece,
                                                   float scale_log2, const float (&lse)[2], Sees sees) {
  float largest = 0.0f, sum = 0.0f;
#pragma unroll
  for (int n = piece * 2; n < piece * 2 + 2; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float weight = ptx::exp2_approx(fmaf(scores[0][n][e], scale_log2, -lse[e >> 1]));
      const float seen = sees(n, e) ? weight : 0.0f;
      largest = fmaxf(largest, seen);
      sum += seen;
    }
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) {
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, step));
    sum += __shfl_xor_sync(kAllLanes, sum, step);
  }
  return make_float2(largest, sum);
}

// One tile of an owner's queries over the listed keys.
template <class Element, int kQk>
__device__ __forceinline__ void sweep(const CudaStatistics& params, char* shared, const ListRow& list_row,
                                      int row, const RowPlaces<true>& places, int batch, EntryWriter writer) {
  using Sizes = StatisticsSizes<Element::kBytes, kQk>;
  constexpr int kRows = Sizes::kRows, kThreads = Sizes::kThreads, kColumns = Sizes::kShape.columns;
  constexpr int kPieces = Sizes::kPieces, kWarps = Sizes::kWarps, kQkBytes = kQk * Element::kBytes;
  using Walk = ListWalk<kPieces>;
  const CudaProblem& p = params.problem;
  const uint32_t queries = ptx::shared_address(shared);
  float2* meeting = reinterpret_cast<float2*>(shared + Sizes::kMeeting);
  cuda::gather_tile<kRows, kQkBytes, kThreads>(queries, places.count, p.q.size * Element::kBytes, [&](int r) {
    return row_pointer(p.q, batch, places.query(r), places.head(r));
  });
  ptx::cp_async_commit();

  const KeyLimit limits(p.lists, list_row.document);
  const int first_row = warp_id() * 16, head = places.first_head;
  const RowLimits<1> row_limits(limits, places, first_row);
  float lse[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = first_row + h * 8 + (lane_id() >> 2);
    lse[h] = INFINITY;  // no weight where there is no row
    if (r >= places.count) continue;
    const int64_t head_row = static_cast<int64_t>(batch) * p.heads + places.head(r);
    const float found = params.lse[head_row * p.lists.queries + places.query(r)];
    lse[h] = found == -INFINITY ? INFINITY : found * kLog2e;
  }
  const char* keys = row_pointer(p.k, batch, list_row.document.k_begin, head * p.key_heads / p.heads);
  const Walk walk(p.lists, list_of(p.lists, batch, head * p.lists.heads / p.heads, row),
                  limits.of(places.query(places.count - 1)));
  int parity = 0, before[kPieces];  // entries of the tile before
#pragma unroll
  for (int i = 0; i < kPieces; ++i) before[i] = -1;
  const auto add_up = [&](int half) {
    if (threadIdx.x != 0) return;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      if (before[i] < 0) continue;
      const float2* warps = meeting + (half * kPieces + i) * kWarps;
      float2 all = warps[0];
#pragma unroll
      for (int w = 1; w < kWarps; ++w) all = make_float2(fmaxf(all.x, warps[w].x), all.y + warps[w].y);
      writer.add(before[i], all);
    }
  };
  cuda::stream_tiles<Sizes::kShape.stages>(
      walk,
      [&](const Walk& at, int stage) {
        load_pieces<kQkBytes, kThreads, Element::kBytes>(queries + (kRows + stage * kColumns) * kQkBytes, at,
                                                         limits.keys, p.k, keys);
      },
      [&](const Walk& at, int stage) {
        add_up(parity ^ 1);
        float scores[1][kColumns / 8][4];  // (1, 8-key tiles, elements of a lane)
        cuda::clear(scores);
        cuda::multiply_rows<Element, kQkBytes>(scores,
                                               cuda::SharedRows<kQkBytes>{queries + first_row * kQkBytes},
                                               queries + (kRows + stage * kColumns) * kQkBytes);
        const OwnPieces<1, kPieces> pieces(at, 0);
#pragma unroll
        for (int i = 0; i < kPieces; ++i) {
          const float2 value = piece_statistics(scores, i, p.scale_log2, lse, [&](int n, int e) {
            return pieces.of(n, e) < row_limits.limit[0][e >> 1];
          });
          if (lane_id() == 0) meeting[(parity * kPieces + i) * kWarps + warp_id()] = value;
          before[i] = at.entry[i];
        }
        parity ^= 1;
      });
  add_up(parity ^ 1);
  if (threadIdx.x == 0) writer.flush();
  __syncthreads();  // the next tile's queries come to where these are, and one thread reads what it wrote
}

template <class Element, int kQk>
__device__ __forceinline__ void statistics(const CudaStatistics& params) {
  using Sizes = StatisticsSizes<Element::kBytes, kQk>;
  extern __shared__ __align__(128) char shared[];
  const CudaProblem& p = params.problem;
  const BlockPlace place(blockIdx.x, p.lists.rows, params.owners);
  const int row = p.lists.rows - 1 - place.tile;
  const ListRow list_row(p.lists, row);
  const int64_t first =
      ((static_cast<int64_t>(place.batch) * params.owners + place.head) * p.lists.rows + row) *
      p.lists.entries;
  float *block_max = params.block_max + first, *block_sum = params.block_sum + first;
  for (int i = static_cast<int>(threadIdx.x); i < p.lists.entries; i += Sizes::kThreads)
    block_max[i] = block_sum[i] = 0.0f;
  __syncthreads();
  const int groups = params.owner_heads / p.group, rows = (list_row.q_end - list_row.q_begin) * p.group;
#pragma unroll 1
  for (int group = 0; group < groups; ++group)
#pragma unroll 1
    for (int from = 0; from < rows; from += Sizes::kRows) {
      const RowPlaces<true> places(list_row.tile(from), Sizes::kRows, place.head * groups + group, p.group);
      sweep<Element, kQk>(params, shared, list_row, row, places, place.batch,
                          {block_max, block_sum, group > 0 || from > 0, -1, make_float2(0.0f, 0.0f)});
    }
}

}  // namespace longreach::block
