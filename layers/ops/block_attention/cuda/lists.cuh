// Where block attention's kernels work: documents and rows of the lists, the keys that queries see, and the
// walk over the blocks that a row lists.
#pragma once
#include "layers/ops/block_attention/cuda/params.h"
#include "layers/ops/cuda/attention/softmax.cuh"
#include "layers/ops/cuda/search.cuh"

namespace longreach::block {

// The document of a row of the lists, or of a key block: the last one that begins no later.
template <int32_t CudaDocument::*kBegin>
__device__ __forceinline__ CudaDocument find_document(const CudaLists& lists, int index) {
  if (lists.documents == nullptr) return {0, lists.queries, 0, lists.keys, 0, 0, {}};
  const int found = cuda::find_begun<kBegin>(lists.documents, lists.document_count, index);
  const int4* words = reinterpret_cast<const int4*>(lists.documents + found);
  const int4 a = words[0], b = words[1];
  return {a.x, a.y, a.z, a.w, b.x, b.y, {}};
}

// How many of its document's keys a query sees, were all of them listed.
struct KeyLimit {
  int keys, shift;

  __device__ __forceinline__ KeyLimit(const CudaLists& lists, const CudaDocument& document)
      : keys(document.k_end - document.k_begin), shift(lists.causal ? keys - document.q_end + 1 : kNowhere) {}
  __device__ __forceinline__ int of(int query) const { return min(max(query + shift, 0), keys); }
};

__device__ __forceinline__ const int32_t* list_of(const CudaLists& lists, int batch, int list, int row) {
  const int64_t first = static_cast<int64_t>(lists.batches > 1 ? batch : 0) * lists.heads + list;
  return lists.indices + (first * lists.rows + row) * lists.entries;
}

// A row of the lists as queries of its document.
struct ListRow {
  CudaDocument document;
  int q_begin, q_end;

  __device__ __forceinline__ ListRow(const CudaLists& lists, int row)
      : document(find_document<&CudaDocument::row_begin>(lists, row)),
        q_begin(document.q_begin + (row - document.row_begin) * lists.query_block),
        q_end(min(q_begin + lists.query_block, document.q_end)) {}
  // Rows of a tile that begins with row `first`: queries, each with all heads of a group.
  __device__ __forceinline__ CudaTile tile(int first) const {
    return {first, q_begin, q_end, document.k_begin, document.k_end, 0, {}};
  }
};

// A block's number, taken apart: tiles of a row change fastest, which share keys; under a causal mask the
// last rows are the longest and begin first.
struct QueryPlace {
  int first, row, head_group, batch;

  __device__ __forceinline__ QueryPlace(const CudaProblem& p, int tile_rows) {
    unsigned index = blockIdx.x;
    const auto take = [&](int count) {
      const auto part = static_cast<int>(index % static_cast<unsigned>(count));
      index /= static_cast<unsigned>(count);
      return part;
    };
    first = take(p.row_tiles) * tile_rows;
    row = p.lists.rows - 1 - take(p.lists.rows);
    head_group = take(p.heads / p.group);
    batch = static_cast<int>(index);
  }
};

// The walk over the listed keys below `limit`, kPieces pieces at a time: key[] counts from the document's
// first key. Entries that name no block of the document or only keys from `limit` on are passed over. All
// lanes come to the same pieces; each looks at one entry of 32.
template <int kPieces>
struct ListWalk {
  const int32_t* list;
  int entries, key_block, limit;
  int key[kPieces], entry[kPieces];

  __device__ __forceinline__ ListWalk(const CudaLists& lists, const int32_t* row, int keys_seen)
      : list(row),
        entries(lists.entries),
        key_block(lists.key_block),
        limit(keys_seen),
        base_(-32),
        block_(-1),
        inside_(0),
        pending_(0) {
    settle();
    advance();
  }
  __device__ __forceinline__ bool valid() const { return key[0] != kNowhere; }
  __device__ __forceinline__ void advance() {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      key[i] = kNowhere;
      entry[i] = -1;
      if (pending_ == 0) continue;
      const int lane = __popc((pending_ - 1) & ~pending_);
      key[i] = __shfl_sync(kAllLanes, block_, lane) * key_block + inside_;
      entry[i] = base_ + lane;
      inside_ += kPiece;
      if (inside_ < key_block && key[i] + kPiece < limit) continue;
      inside_ = 0;
      pending_ &= pending_ - 1;
      settle();
    }
  }
  // The last key of the tile, or kNowhere and more where pieces are missing.
  __device__ __forceinline__ int end() const {
    int last = key[0];
#pragma unroll
    for (int i = 1; i < kPieces; ++i) last = max(last, key[i]);
    return last + kPiece;
  }

 private:
  __device__ __forceinline__ void settle() {
    const unsigned seen = static_cast<unsigned>((limit + key_block - 1) / key_block);
#pragma unroll 1
    while (pending_ == 0 && base_ + 32 < entries) {
      base_ += 32;
      const int index = base_ + lane_id();
      block_ = index < entries ? list[index] : -1;
      pending_ = __ballot_sync(kAllLanes, static_cast<unsigned>(block_) < seen);
    }
  }

  int base_, block_, inside_;
  unsigned pending_;
};

// Starts the copies of the pieces of `rows`, whose data points at the document's first key.
template <int kRowBytes, int kThreads, int kElementBytes, int kPieces>
__device__ __forceinline__ void load_pieces(uint32_t tile, const ListWalk<kPieces>& at, int keys,
                                            const CudaRows& rows, const char* first) {
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int key = at.key[i] == kNowhere ? 0 : at.key[i], count = at.key[i] == kNowhere ? 0 : keys - key;
    cuda::load_tile<kPiece, kRowBytes, kThreads>(tile + i * kPiece * kRowBytes, count,
                                                 rows.size * kElementBytes, first + key * rows.token,
                                                 rows.token);
  }
}

// The keys and values of a document, of the heads that belong to query head `head`: a stage takes the pieces
// of a tile, those of the keys first.
template <class Element, class Sizes, int kQk, int kV>
struct ListedKeys {
  static constexpr int kColumns = Sizes::kShape.columns, kThreads = Sizes::kThreads;
  static constexpr int kQkBytes = kQk * Element::kBytes, kVBytes = kV * Element::kBytes;
  const CudaProblem& p;
  uint32_t stages;
  int count;
  const char *keys, *values;

  __device__ __forceinline__ ListedKeys(const CudaProblem& problem, const CudaDocument& document, int batch,
                                        int head, uint32_t to)
      : p(problem),
        stages(to),
        count(document.k_end - document.k_begin),
        keys(row_pointer(p.k, batch, document.k_begin, head * p.key_heads / p.heads)),
        values(row_pointer(p.v, batch, document.k_begin, head * p.value_heads / p.heads)) {}
  __device__ __forceinline__ void load(const ListWalk<kColumns / kPiece>& at, int stage) const {
    const uint32_t to = stages + stage * kColumns * (kQkBytes + kVBytes);
    load_pieces<kQkBytes, kThreads, Element::kBytes>(to, at, count, p.k, keys);
    load_pieces<kVBytes, kThreads, Element::kBytes>(to + kColumns * kQkBytes, at, count, p.v, values);
  }
};

// The pieces of one of the kWarps warps that share out a tile: chosen without an index, which would put them
// into local memory.
template <int kWarps, int kPieces>
struct OwnPieces {
  static constexpr int kOwn = kPieces / kWarps;
  int key[kOwn];

  __device__ __forceinline__ OwnPieces(const ListWalk<kPieces>& at, int warp) {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      key[i] = at.key[i];
#pragma unroll
      for (int w = 1; w < kWarps; ++w) key[i] = warp == w ? at.key[w * kOwn + i] : key[i];
    }
  }
  // The key of element `e` of column tile `n` of this lane's accumulators.
  __device__ __forceinline__ int of(int n, int e) const {
    return key[n >> 1] + (n & 1) * 8 + (lane_id() & 3) * 2 + (e & 1);
  }
};

// How many keys each row of this lane's accumulators sees; rows past the end repeat the last one.
template <int kRowTiles>
struct RowLimits {
  int limit[kRowTiles][2];  // (16-row tiles, rows of a lane)

  template <class Places>
  __device__ __forceinline__ RowLimits(const KeyLimit& limits, const Places& places, int first_row) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = first_row + m * 16 + h * 8 + (lane_id() >> 2);
        limit[m][h] = limits.of(places.query(min(row, places.count - 1)));
      }
  }
};

}  // namespace longreach::block
