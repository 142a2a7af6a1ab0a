// Copies of key and value heads, for every Highway target.
#include "layers/ops/cpu/packed.h"
#include "layers/ops/cpu/prefetch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/cpu/packed.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "layers/ops/cpu/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::softmax_tile::HWY_NAMESPACE {

void pack_rows(const void* from, int64_t from_row, int64_t rows, int64_t size, DType dtype, float* to) {
  namespace vec = simd::HWY_NAMESPACE;
  const int64_t width = dtype == DType::kFloat32 ? 4 : 2;
  for (int64_t i = 0; i < rows; ++i) {
    if (i + simd::kRowsAhead < rows)
      simd::prefetch_row(static_cast<const char*>(from) + (i + simd::kRowsAhead) * from_row * width,
                         size * width);
    if (dtype == DType::kFloat32) {
      vec::row_to_float(static_cast<const float*>(from) + i * from_row, size, to + i * size);
    } else {
      vec::row_to_float(static_cast<const uint16_t*>(from) + i * from_row, size, to + i * size);
    }
  }
}

}  // namespace longreach::softmax_tile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longreach::softmax_tile {
HWY_EXPORT(pack_rows);

PackedHeads::PackedHeads(const Strided& input, int64_t keys, int64_t size, DType dtype, Bf16Product product,
                         int64_t reuse)
    : input_(input), size_(size), keys_(keys), dtype_(dtype) {
  constexpr int64_t kWorthwhile = 4;
  const bool bf16 = dtype == DType::kBFloat16;
  const bool in_place = bf16 ? product != Bf16Product::kFloat : input.token == size;
  packed_ = !in_place && reuse >= kWorthwhile;
}

void PackedHeads::open(int64_t slots) {
  if (packed_) space_.get(slots * keys_ * size_);
}

void PackedHeads::fill_rows(int64_t batch, int64_t head, int64_t slot, int64_t first, int64_t last) {
  if (!packed_) return;
  const int64_t offset = batch * input_.batch + head * input_.head + first * input_.token,
                width = dtype_ == DType::kFloat32 ? 4 : 2;
  HWY_DYNAMIC_DISPATCH(pack_rows)
  (static_cast<const char*>(input_.data) + offset * width, input_.token, last - first, size_, dtype_,
   space_.data() + (slot * keys_ + first) * size_);
}

const void* PackedHeads::rows(int64_t batch, int64_t head, int64_t slot) const {
  if (packed_) return space_.data() + slot * keys_ * size_;
  const int64_t offset = batch * input_.batch + head * input_.head, width = dtype_ == DType::kFloat32 ? 4 : 2;
  return static_cast<const char*>(input_.data) + offset * width;
}

}  // namespace longreach::softmax_tile
#endif
