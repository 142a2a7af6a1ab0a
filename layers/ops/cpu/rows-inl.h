// Rows of float32 or bfloat16 as vectors of float32, for every Highway target: whole vectors, and the short
// one at the end of a row. Include after hwy/highway.h in a file that foreach_target compiles once per
// target.
#if defined(LONGREACH_LAYERS_OPS_SIMD_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGREACH_LAYERS_OPS_SIMD_ROWS_INL_H_
#undef LONGREACH_LAYERS_OPS_SIMD_ROWS_INL_H_
#else
#define LONGREACH_LAYERS_OPS_SIMD_ROWS_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "layers/ops/cpu/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::simd::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using RowTag = hn::ScalableTag<float>;
using RowVector = hn::Vec<RowTag>;
constexpr RowTag kRowTag;

HWY_INLINE int64_t lanes() { return static_cast<int64_t>(hn::Lanes(kRowTag)); }

HWY_INLINE RowVector load_whole(const float* from) { return hn::LoadU(kRowTag, from); }
HWY_INLINE RowVector load_whole(const uint16_t* from) { return load_bf16(kRowTag, from); }
HWY_INLINE void store_whole(RowVector x, float* to) { hn::StoreU(x, kRowTag, to); }
HWY_INLINE void store_whole(RowVector x, uint16_t* to) { store_bf16(kRowTag, x, to); }

// The first `count` elements, zeros behind them: the end of a row takes the same vector arithmetic as the
// rest.
template <class T>
HWY_INLINE RowVector load(const T* from, int64_t count) {
  if (count >= lanes()) return load_whole(from);
  T some[HWY_MAX_BYTES / sizeof(float)] = {};
  std::memcpy(some, from, static_cast<size_t>(count) * sizeof(T));
  return load_whole(some);
}

template <class T>
HWY_INLINE void store(RowVector x, T* to, int64_t count) {
  if (count >= lanes()) return store_whole(x, to);
  T some[HWY_MAX_BYTES / sizeof(float)];
  store_whole(x, some);
  std::memcpy(to, some, static_cast<size_t>(count) * sizeof(T));
}

// f(place, count) for each vector of n elements; the last count may be short.
template <class F>
HWY_INLINE void for_vectors(int64_t n, F f) {
  const int64_t step = lanes();
  for (int64_t i = 0; i < n; i += step) f(i, std::min(step, n - i));
}

HWY_INLINE float sum(RowVector x) { return hn::GetLane(hn::SumOfLanes(kRowTag, x)); }

}  // namespace longreach::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // LONGREACH_LAYERS_OPS_SIMD_ROWS_INL_H_
