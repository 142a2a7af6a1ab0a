// Rows of tensors as softmax kernels read and write them, for every Highway target.
#if defined(LONGREACH_LAYERS_OPS_SOFTMAX_TILE_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGREACH_LAYERS_OPS_SOFTMAX_TILE_ROWS_INL_H_
#undef LONGREACH_LAYERS_OPS_SOFTMAX_TILE_ROWS_INL_H_
#else
#define LONGREACH_LAYERS_OPS_SOFTMAX_TILE_ROWS_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <type_traits>

#include "layers/ops/cpu/products-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::softmax_tile::HWY_NAMESPACE {

// Row lengths that the products write.
inline int64_t padded_size(int64_t size, bool dot_product) {
  return dot_product ? pad_to_strip(size) : vec::pad_to_lanes(size);
}

template <class Element>
const Element* row_pointer(const Strided& x, int64_t batch, int64_t token, int64_t head) {
  return static_cast<const Element*>(x.data) + batch * x.batch + token * x.token + head * x.head;
}
template <class Element>
Element* mutable_row(const Strided& x, int64_t batch, int64_t token, int64_t head) {
  return static_cast<Element*>(x.data) + batch * x.batch + token * x.token + head * x.head;
}

template <class Element>
float dot(const Element* a, const Element* b, int64_t n) {
  const FloatTag d;
  auto sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    if constexpr (std::is_same_v<Element, float>) {
      sum = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum);
    } else {
      sum = hn::MulAdd(vec::load_bf16(d, a + i), vec::load_bf16(d, b + i), sum);
    }
  }
  float total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) {
    if constexpr (std::is_same_v<Element, float>) {
      total += a[i] * b[i];
    } else {
      total += simd::float_from_bf16(a[i]) * simd::float_from_bf16(b[i]);
    }
  }
  return total;
}

// fp32 rows to rows of the output.
inline void store_rows(const float* from, int64_t from_row, int64_t rows, int64_t size, DType dtype, void* to,
                       int64_t to_row) {
  for (int64_t i = 0; i < rows; ++i) {
    if (dtype == DType::kFloat32) {
      vec::row_from_float(from + i * from_row, size, static_cast<float*>(to) + i * to_row);
    } else {
      vec::row_from_float(from + i * from_row, size, static_cast<uint16_t*>(to) + i * to_row);
    }
  }
}

// Columns of x_t [size, kTile] to rows; staging: count x size floats, for bf16 alone.
template <class Element>
void store_transposed(const float* x_t, int64_t size, int64_t count, Element* to, int64_t to_row,
                      float* staging) {
  if constexpr (std::is_same_v<Element, float>) {
    vec::transpose(x_t, kTile, size, count, to, to_row);
  } else {
    vec::transpose(x_t, kTile, size, count, staging, size);
    for (int64_t i = 0; i < count; ++i) vec::row_from_float(staging + i * size, size, to + i * to_row);
  }
}

}  // namespace longreach::softmax_tile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // LONGREACH_LAYERS_OPS_SOFTMAX_TILE_ROWS_INL_H_
