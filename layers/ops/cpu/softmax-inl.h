// The online softmax of one tile of S^T (FlashAttention-2, arXiv 2307.08691, Algorithm 1, transposed), for
// every Highway target. Statistics and O^T in fp32, base 2. The running maximum moves only when a score
// exceeds it by more than 2^kHeadroom: O^T is then rescaled; in between the exponentials may reach
// 2^kHeadroom, which fp32 sums hold without loss.
#if defined(LONGREACH_LAYERS_OPS_SOFTMAX_TILE_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGREACH_LAYERS_OPS_SOFTMAX_TILE_SOFTMAX_INL_H_
#undef LONGREACH_LAYERS_OPS_SOFTMAX_TILE_SOFTMAX_INL_H_
#else
#define LONGREACH_LAYERS_OPS_SOFTMAX_TILE_SOFTMAX_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "layers/ops/cpu/products-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::softmax_tile::HWY_NAMESPACE {

inline constexpr float kHeadroom = 8.0f;
// The lowest finite number: no score is below it, and differences of maxima never are NaN.
inline constexpr float kNoMaximum = std::numeric_limits<float>::lowest();

// Per query: the running maximum, the sum of 2^(s - maximum), and the factor that O^T is due. A query that
// sees a key has a result whatever its scores are: NaN among them makes maximum + log2(sum) NaN.
struct Statistics {
  alignas(64) float maximum[kTile], sum[kTile], factor[kTile];
  bool sees[kTile] = {};  // at least one key, by the mask; the caller says so before the results are taken

  Statistics() {
    std::fill(maximum, maximum + kTile, kNoMaximum);
    std::fill(sum, sum + kTile, 0.0f);
  }
  // Natural; -inf for a query that sees no key.
  float lse(int64_t i) const {
    return sees[i] ? (maximum[i] + std::log2(sum[i])) * kLn2 : -std::numeric_limits<float>::infinity();
  }
};

// Turns kVectors vectors of columns of S^T (products q.k) into P^T. Returns whether O^T must be rescaled.
// Scores are rounded before the maximum is subtracted, and stored between: a product and a difference in one
// instruction would leave what the maximum's own rounding dropped, which is beyond any exponential for scores
// of 1e9 and more.
template <int kVectors, bool kMasked, class Visibility>
HWY_INLINE bool softmax_columns(const Visibility& seen, int64_t keys, int64_t column, float scale, float* s,
                                Statistics& statistics) {
  const FloatTag d;
  const auto factor = hn::Set(d, scale);
  Floats peak[kVectors], sum[kVectors];
  for (int v = 0; v < kVectors; ++v) peak[v] = hn::Set(d, kNoMaximum);
  for (int64_t j = 0; j < keys; ++j) {
    for (int v = 0; v < kVectors; ++v) {
      float* at = s + j * kTile + v * kLanes;
      auto x = hn::Mul(hn::LoadU(d, at), factor);
      hn::StoreU(x, d, at);
      if constexpr (kMasked) x = hn::IfThenElse(seen.mask(column + v * kLanes, j), x, hn::Set(d, kNoMaximum));
      peak[v] = hn::Max(x, peak[v]);
    }
  }
  bool rescale = false;
  for (int v = 0; v < kVectors; ++v) {
    const auto maximum = hn::LoadU(d, statistics.maximum + column + v * kLanes);
    rescale |= !hn::AllFalse(d, hn::Gt(peak[v], hn::Add(maximum, hn::Set(d, kHeadroom))));
  }
  for (int v = 0; v < kVectors; ++v) {
    float* maximum = statistics.maximum + column + v * kLanes;
    const auto before = hn::LoadU(d, maximum);
    peak[v] = rescale ? hn::Max(peak[v], before) : before;
    sum[v] = hn::LoadU(d, statistics.sum + column + v * kLanes);
    if (rescale) {
      const auto due = vec::exp2_bounded(d, hn::Sub(before, peak[v]));
      sum[v] = hn::Mul(sum[v], due);
      hn::StoreU(due, d, statistics.factor + column + v * kLanes);
      hn::StoreU(peak[v], d, maximum);
    }
  }
  for (int64_t j = 0; j < keys; ++j) {
    for (int v = 0; v < kVectors; ++v) {
      float* at = s + j * kTile + v * kLanes;
      auto p = vec::exp2_bounded(d, hn::Sub(hn::LoadU(d, at), peak[v]));
      if constexpr (kMasked) p = hn::IfThenElseZero(seen.mask(column + v * kLanes, j), p);
      sum[v] = hn::Add(sum[v], p);
      hn::StoreU(p, d, at);
    }
  }
  for (int v = 0; v < kVectors; ++v) hn::StoreU(sum[v], d, statistics.sum + column + v * kLanes);
  return rescale;
}

// A tile of S^T becomes P^T relative to the running maxima; O^T [v_size, kTile] is brought to them.
// seen.mask(column, j): which of the lanes (queries) from `column` on see row j of the tile; asked where
// kMasked.
template <bool kMasked, class Visibility>
void online_softmax(const Visibility& seen, int64_t keys, int64_t columns, float scale, float* s,
                    Statistics& statistics, float* o_t, int64_t v_size) {
  const FloatTag d;
  constexpr int kGroup = vec::kMaxVectors;
  for (int64_t column = 0; column < columns;) {
    const bool group = column + kGroup * kLanes <= columns;
    const int64_t width = group ? kGroup * kLanes : kLanes;
    const bool rescale =
        group ? softmax_columns<kGroup, kMasked>(seen, keys, column, scale, s + column, statistics)
              : softmax_columns<1, kMasked>(seen, keys, column, scale, s + column, statistics);
    for (int64_t c = column; rescale && c < column + width; c += kLanes) {
      const auto due = hn::LoadU(d, statistics.factor + c);
      for (int64_t e = 0; e < v_size; ++e) {
        float* at = o_t + e * kTile + c;
        hn::StoreU(hn::Mul(hn::LoadU(d, at), due), d, at);
      }
    }
    column += width;
  }
}

// O^T becomes o^T = O^T / sum; 0 for queries that see no key.
inline void divide_output(const Statistics& statistics, int64_t columns, int64_t v_size, float* o_t) {
  const FloatTag d;
  alignas(64) float inverses[kTile];
  for (int64_t i = 0; i < columns; ++i) inverses[i] = statistics.sees[i] ? 1.0f / statistics.sum[i] : 0.0f;
  for (int64_t c = 0; c < columns; c += kLanes) {
    const auto inverse = hn::LoadU(d, inverses + c);
    for (int64_t e = 0; e < v_size; ++e) {
      float* at = o_t + e * kTile + c;
      hn::StoreU(hn::Mul(hn::LoadU(d, at), inverse), d, at);
    }
  }
}

}  // namespace longreach::softmax_tile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // LONGREACH_LAYERS_OPS_SOFTMAX_TILE_SOFTMAX_INL_H_
