// Products over the pairs of a tile that are seen, one by one: for tiles that are seen in part and whose
// operands hold something that is not finite, for every Highway target. The products of products-inl.h
// multiply unseen rows by 0, which makes NaN of NaN and of infinity, and carries it to queries and keys that
// have nothing to do with them.
#if defined(LONGREACH_LAYERS_OPS_SOFTMAX_TILE_SEEN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGREACH_LAYERS_OPS_SOFTMAX_TILE_SEEN_INL_H_
#undef LONGREACH_LAYERS_OPS_SOFTMAX_TILE_SEEN_INL_H_
#else
#define LONGREACH_LAYERS_OPS_SOFTMAX_TILE_SEEN_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>

#include "layers/ops/cpu/products-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::softmax_tile::HWY_NAMESPACE {

// Rows of an operand where they lie.
struct OperandRows {
  const void* data;
  int64_t row;
  DType dtype;

  float at(int64_t r, int64_t e) const {
    return dtype == DType::kFloat32 ? static_cast<const float*>(data)[r * row + e]
                                    : simd::float_from_bf16(static_cast<const uint16_t*>(data)[r * row + e]);
  }
  bool finite(int64_t count, int64_t size) const {
    return dtype == DType::kFloat32 ? finite_rows(static_cast<const float*>(data), count, size)
                                    : finite_rows(static_cast<const uint16_t*>(data), count, size);
  }

 private:
  template <class Element>
  bool finite_rows(const Element* x, int64_t count, int64_t size) const {
    bool finite = true;
    for (int64_t r = 0; finite && r < count; ++r) finite = vec::all_finite(x + r * row, size);
    return finite;
  }
};

inline OperandRows rows_from(const void* data, int64_t row, DType dtype, int64_t first) {
  return {static_cast<const char*>(data) + first * row * (dtype == DType::kFloat32 ? 4 : 2), row, dtype};
}

// out^T [size, kTile] += X^T W over the seen pairs: W [rows, kTile], X by rows.
template <class Visibility>
void add_seen_transposed(const Visibility& seen, int64_t rows, int64_t columns, const float* w,
                         const OperandRows& x, int64_t size, float* out_t) {
  const FloatTag d;
  for (int64_t j = 0; j < rows; ++j)
    for (int64_t c = 0; c < columns; c += kLanes) {
      const auto mask = seen.mask(c, j);
      const auto weight = hn::LoadU(d, w + j * kTile + c);
      for (int64_t e = 0; e < size; ++e) {
        float* to = out_t + e * kTile + c;
        const auto term = hn::IfThenElseZero(mask, hn::Mul(weight, hn::Set(d, x.at(j, e))));
        hn::StoreU(hn::Add(hn::LoadU(d, to), term), d, to);
      }
    }
}

// out [rows, ld] += W X over the seen pairs: W [rows, kTile], X by columns of W, `count` of them.
template <class Visibility>
void add_seen_rows(const Visibility& seen, int64_t rows, int64_t count, const float* w, const OperandRows& x,
                   int64_t size, float* out, int64_t ld) {
  const FloatTag d;
  alignas(64) float sees[kLanes];
  for (int64_t j = 0; j < rows; ++j)
    for (int64_t c = 0; c < count; c += kLanes) {
      hn::StoreU(hn::IfThenElseZero(seen.mask(c, j), hn::Set(d, 1.0f)), d, sees);
      for (int64_t i = c; i < std::min<int64_t>(c + kLanes, count); ++i) {
        if (sees[i - c] == 0) continue;
        for (int64_t e = 0; e < size; ++e) out[j * ld + e] += w[j * kTile + i] * x.at(i, e);
      }
    }
}

}  // namespace longreach::softmax_tile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // LONGREACH_LAYERS_OPS_SOFTMAX_TILE_SEEN_INL_H_
