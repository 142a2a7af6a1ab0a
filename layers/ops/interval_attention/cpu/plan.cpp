// The cutting of work into tiles, the same for forward and backward, for every instruction set.
#include <limits>

#include "layers/ops/interval_attention/cpu/plan.h"

namespace longreach::interval {
std::vector<QueryTile> query_tiles(const Params& params) {
  std::vector<QueryTile> tiles;
  for (int64_t document = 0; document < params.documents; ++document) {
    const bool packed = params.cu_queries != nullptr;
    const int64_t q0 = packed ? params.cu_queries[document] : 0;
    const int64_t q1 = packed ? params.cu_queries[document + 1] : params.queries;
    const int64_t k0 = packed ? params.cu_keys[document] : 0;
    const int64_t k1 = packed ? params.cu_keys[document + 1] : params.keys;
    for (int64_t first = q0; first < q1; first += kQueryTile)
      tiles.push_back({first, std::min(kQueryTile, q1 - first), k0, k1, k1 - q1});
  }
  return tiles;
}

RowIntervals row_intervals(const Params& params, const QueryTile& tile, int64_t batch, int64_t head) {
  RowIntervals rows;
  const bool given = params.lo != nullptr;
  const int64_t mask_head = given ? head * params.mask_heads / params.heads : 0;
  const int64_t mask_batch = given && params.mask_batches > 1 ? batch : 0;
  const int64_t mask_row = (mask_batch * params.mask_heads + mask_head) * params.queries;
  rows.sink_end =
      std::min(tile.key_end, tile.key_begin + std::min(params.sinks, tile.key_end - tile.key_begin));
  rows.begin = rows.last_lo = std::numeric_limits<int64_t>::max();
  rows.end = rows.visible_end = tile.key_begin;
  rows.last_lo = tile.key_begin;
  rows.first_hi = tile.key_end;
  for (int64_t i = 0; i < kQueryTile; ++i) {
    const int64_t query = tile.first + std::min(i, tile.count - 1), position = query + tile.shift;
    int64_t lo = tile.key_begin, hi = tile.key_end;
    if (given) {
      lo = params.lo[mask_row + query];
      hi = params.hi[mask_row + query];
    } else {
      if (params.causal) hi = position + 1;
      if (params.window > 0) lo = position - params.window + 1;
    }
    lo = std::clamp(lo, tile.key_begin, tile.key_end);
    hi = std::clamp(hi, tile.key_begin, tile.key_end);
    rows.lo[i] = static_cast<int32_t>(lo);
    rows.hi[i] = static_cast<int32_t>(hi);
    rows.last_lo = std::max(rows.last_lo, lo);
    rows.first_hi = std::min(rows.first_hi, hi);
    rows.visible_end = std::max(rows.visible_end, hi);
    if (lo < hi) {
      rows.begin = std::min(rows.begin, lo);
      rows.end = std::max(rows.end, hi);
    }
  }
  if (rows.end == tile.key_begin) rows.begin = rows.end;
  return rows;
}

KeyTiles key_tiles(const QueryTile& tile, const RowIntervals& rows) {
  const auto tiles_up_to = [&](int64_t key) { return (key - tile.key_begin + kKeyTile - 1) / kKeyTile; };
  KeyTiles tiles;
  tiles.sink_tiles = tiles_up_to(std::min(rows.sink_end, rows.visible_end));
  tiles.first = (rows.begin - tile.key_begin) / kKeyTile;
  tiles.end = std::max(tiles_up_to(rows.end), tiles.sink_tiles);
  return tiles;
}

}  // namespace longreach::interval
