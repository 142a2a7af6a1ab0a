// Which keys of a tile the queries of a tile see, for every Highway target, and the parts of softmax_tile
// that forward and backward are made of.
#if defined(LONGREACH_LAYERS_OPS_INTERVAL_ATTENTION_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGREACH_LAYERS_OPS_INTERVAL_ATTENTION_TILE_INL_H_
#undef LONGREACH_LAYERS_OPS_INTERVAL_ATTENTION_TILE_INL_H_
#else
#define LONGREACH_LAYERS_OPS_INTERVAL_ATTENTION_TILE_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>

#include "layers/ops/cpu/products-inl.h"
#include "layers/ops/cpu/seen-inl.h"
#include "layers/ops/cpu/softmax-inl.h"
#include "layers/ops/cpu/softmax_rows-inl.h"
#include "layers/ops/interval_attention/cpu/plan.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::interval::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using namespace softmax_tile::HWY_NAMESPACE;

// The tile of keys from first_key on.
struct TileVisibility {
  const RowIntervals& rows;
  int64_t first_key;

  // Which lanes (queries from `column` on) see row j of the tile.
  HWY_INLINE hn::Mask<FloatTag> mask(int64_t column, int64_t j) const {
    const FloatTag d;
    const hn::RebindToSigned<FloatTag> di;
    const int64_t at = first_key + j;
    const auto key = hn::Set(di, static_cast<int32_t>(at));
    auto seen = hn::Lt(key, hn::LoadU(di, rows.hi + column));
    if (at >= rows.sink_end) seen = hn::And(seen, hn::Not(hn::Lt(key, hn::LoadU(di, rows.lo + column))));
    return hn::RebindMask(d, seen);
  }

  bool any(int64_t column, int64_t from, int64_t to) const {
    from += first_key, to += first_key;
    for (int64_t i = column; i < column + kStrip; ++i)
      if (from < rows.hi[i] && std::max<int64_t>(from, rows.lo[i]) < std::min<int64_t>(to, rows.hi[i]))
        return true;
    if (from >= rows.sink_end) return false;
    return *std::max_element(rows.hi + column, rows.hi + column + kStrip) > from;
  }
};

}  // namespace longreach::interval::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // LONGREACH_LAYERS_OPS_INTERVAL_ATTENTION_TILE_INL_H_
