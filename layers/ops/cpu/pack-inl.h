// Moving tiles between layouts and element types, for every Highway target: bf16 <-> fp32 rows, transposes,
// zero padding. Include after hwy/highway.h in a file that foreach_target compiles once per target.
#if defined(LONGREACH_LAYERS_OPS_SIMD_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGREACH_LAYERS_OPS_SIMD_PACK_INL_H_
#undef LONGREACH_LAYERS_OPS_SIMD_PACK_INL_H_
#else
#define LONGREACH_LAYERS_OPS_SIMD_PACK_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

#include "layers/ops/cpu/bfloat16.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::simd::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The next multiple of the vector width.
HWY_INLINE int64_t pad_to_lanes(int64_t n) {
  constexpr int64_t lanes = HWY_MAX_BYTES / sizeof(float);
  return (n + lanes - 1) / lanes * lanes;
}

// A vector of bf16 as fp32.
template <class D>
HWY_INLINE hn::Vec<D> load_bf16(D d, const uint16_t* from) {
  const hn::Rebind<uint16_t, D> narrow;
  const hn::RebindToUnsigned<D> wide;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(wide, hn::LoadU(narrow, from))));
}

// fp32 as bf16 in the low half of each lane: to nearest, ties to even; NaN stays a (quiet) NaN.
template <class D>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> round_to_bf16(D, hn::Vec<D> x) {
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const auto rounded = hn::Add(hn::Add(bits, hn::Set(du, 0x7fffu)), odd);
  const auto quiet = hn::Or(bits, hn::Set(du, 0x00400000u));
  return hn::ShiftRight<16>(hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(x)), quiet, rounded));
}

template <class D>
HWY_INLINE void store_bf16(D d, hn::Vec<D> x, uint16_t* to) {
  const hn::Rebind<uint16_t, D> narrow;
  const hn::RebindToSigned<D> di;
  hn::StoreU(hn::DemoteTo(narrow, hn::BitCast(di, round_to_bf16(d, x))), narrow, to);
}

HWY_INLINE void row_to_float(const uint16_t* from, int64_t n, float* to) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(load_bf16(d, from + i), d, to + i);
  for (; i < n; ++i) to[i] = float_from_bf16(from[i]);
}
HWY_INLINE void row_to_float(const float* from, int64_t n, float* to) {
  std::memcpy(to, from, n * sizeof(float));
}

HWY_INLINE void row_from_float(const float* from, int64_t n, uint16_t* to) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store_bf16(d, hn::LoadU(d, from + i), to + i);
  for (; i < n; ++i) to[i] = bf16_from_float(from[i]);
}
HWY_INLINE void row_from_float(const float* from, int64_t n, float* to) {
  std::memcpy(to, from, n * sizeof(float));
}

// Does a row hold finite numbers alone? By the bits: an exponent of ones is infinite or NaN.
HWY_INLINE bool all_finite(const float* x, int64_t n) {
  const hn::ScalableTag<int32_t> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto* bits = reinterpret_cast<const int32_t*>(x);
  const auto magnitude = hn::Set(d, 0x7fffffff);
  auto largest = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) largest = hn::Max(largest, hn::And(hn::LoadU(d, bits + i), magnitude));
  bool finite = hn::AllTrue(d, hn::Lt(largest, hn::Set(d, 0x7f800000)));
  for (; i < n; ++i) {
    int32_t one = 0;
    std::memcpy(&one, x + i, sizeof one);
    finite &= (one & 0x7fffffff) < 0x7f800000;
  }
  return finite;
}
HWY_INLINE bool all_finite(const uint16_t* x, int64_t n) {
  const hn::ScalableTag<int16_t> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto* bits = reinterpret_cast<const int16_t*>(x);
  const auto magnitude = hn::Set(d, int16_t{0x7fff});
  auto largest = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) largest = hn::Max(largest, hn::And(hn::LoadU(d, bits + i), magnitude));
  bool finite = hn::AllTrue(d, hn::Lt(largest, hn::Set(d, int16_t{0x7f80})));
  for (; i < n; ++i) finite &= (x[i] & 0x7fff) < 0x7f80;
  return finite;
}

// to[r, c] = from[r, c] as fp32 for r < rows, c < columns, and 0 up to padded_rows and padded_columns.
template <class T>
HWY_INLINE void pad_tile(const T* from, int64_t from_row, int64_t rows, int64_t columns, float* to,
                         int64_t to_row, int64_t padded_rows, int64_t padded_columns) {
  for (int64_t r = 0; r < rows; ++r) {
    row_to_float(from + r * from_row, columns, to + r * to_row);
    for (int64_t c = columns; c < padded_columns; ++c) to[r * to_row + c] = 0.0f;
  }
  for (int64_t r = rows; r < padded_rows; ++r)
    std::memset(to + r * to_row, 0, padded_columns * sizeof(float));
}

// to[c, r] = from[r, c] of 4-byte elements (fp32, or pairs of bf16: bits are not changed).
HWY_INLINE void transpose(const float* from, int64_t from_row, int64_t rows, int64_t columns, float* to,
                          int64_t to_row) {
  const hn::FixedTag<float, 4> d;
  const hn::FixedTag<double, 2> dd;
  const int64_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
  for (int64_t c = 0; c < whole_columns; c += 4) {
    for (int64_t r = 0; r < whole_rows; r += 4) {
      const float* f = from + r * from_row + c;
      const auto r0 = hn::LoadU(d, f), r1 = hn::LoadU(d, f + from_row);
      const auto r2 = hn::LoadU(d, f + 2 * from_row), r3 = hn::LoadU(d, f + 3 * from_row);
      const auto low01 = hn::BitCast(dd, hn::InterleaveLower(d, r0, r1));
      const auto high01 = hn::BitCast(dd, hn::InterleaveUpper(d, r0, r1));
      const auto low23 = hn::BitCast(dd, hn::InterleaveLower(d, r2, r3));
      const auto high23 = hn::BitCast(dd, hn::InterleaveUpper(d, r2, r3));
      float* t = to + c * to_row + r;
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dd, low01, low23)), d, t);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dd, low01, low23)), d, t + to_row);
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dd, high01, high23)), d, t + 2 * to_row);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dd, high01, high23)), d, t + 3 * to_row);
    }
  }
  const auto copy = [&](int64_t r, int64_t c) {
    std::memcpy(to + c * to_row + r, from + r * from_row + c, sizeof(float));
  };
  for (int64_t r = whole_rows; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) copy(r, c);
  for (int64_t r = 0; r < whole_rows; ++r)
    for (int64_t c = whole_columns; c < columns; ++c) copy(r, c);
}

}  // namespace longreach::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // LONGREACH_LAYERS_OPS_SIMD_PACK_INL_H_
