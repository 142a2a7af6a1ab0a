// How the work is cut: tiles of queries within a document, the keys each row sees, the key tiles a query tile
// visits.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "layers/ops/cpu/packed.h"
#include "layers/ops/interval_attention/kernels.h"

namespace longreach::interval {

using softmax_tile::KeyValueRows;
using softmax_tile::PackedHeads;

inline constexpr int64_t kQueryTile = softmax_tile::kTile;
inline constexpr int64_t kKeyTile = softmax_tile::kTile;

// Consecutive queries of one document and the document's keys. Query i stands at key position i + shift.
struct QueryTile {
  int64_t first, count;
  int64_t key_begin, key_end;
  int64_t shift;
};

std::vector<QueryTile> query_tiles(const Params& params);

// The keys that the rows of a tile see: lo <= j < hi, and j < min(sink_end, hi). Rows past `count` repeat the
// last one.
struct RowIntervals {
  alignas(64) int32_t lo[kQueryTile], hi[kQueryTile];
  int64_t sink_end;           // key_begin when there are no sinks
  int64_t begin, end;         // hull of all intervals; begin = end when all are empty
  int64_t last_lo, first_hi;  // keys from last_lo to first_hi lie in every row's interval
  int64_t visible_end;        // largest hi: no key from here on is seen, sink or not

  // Does row i see any key?
  bool sees_any(int64_t i, int64_t key_begin) const {
    return lo[i] < hi[i] || std::min<int64_t>(sink_end, hi[i]) > key_begin;
  }
  // Do all rows see all keys of [from, to)?
  bool sees_all(int64_t from, int64_t to) const {
    return to <= first_hi && (from >= last_lo || to <= sink_end);
  }
};

RowIntervals row_intervals(const Params& params, const QueryTile& tile, int64_t batch, int64_t head);

// Key tiles (counted from key_begin) that some row may see: those below sink_tiles, and [first, end).
struct KeyTiles {
  int64_t sink_tiles, first, end;

  int64_t start() const { return skip(0); }
  int64_t next(int64_t tile) const { return skip(tile + 1); }

 private:
  int64_t skip(int64_t tile) const { return tile < sink_tiles ? tile : std::max(tile, first); }
};

KeyTiles key_tiles(const QueryTile& tile, const RowIntervals& rows);

}  // namespace longreach::interval
