// y = x weight^T for a few rows of x: decoding. Each weight is used once a row of x, so that the time is that
// of reading the weights: they are one long stream, asked for ahead of its use, shared out in pieces.
#include <algorithm>

#include "layers/ops/cpu/parallel.h"
#include "layers/ops/cpu/scratch.h"
#include "layers/ops/matmul/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/matmul/cpu/few_rows.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "layers/ops/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::few_rows::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using namespace simd::HWY_NAMESPACE;

// Vectors of the weight that are summed side by side, since one chain of additions waits for itself.
constexpr int kChains = 4;
// Far enough for memory, near enough for the first cache.
constexpr int64_t kBytesAhead = 2048;

// The elements of one row of the weight times the rows of x, which lie `row` apart.
template <int kRows, class T>
HWY_INLINE void dot(const T* weight, const float* x, int64_t row, int64_t in, float* sums) {
  RowVector partial[kRows][kChains];
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kChains; ++c) partial[r][c] = hn::Zero(kRowTag);
  const int64_t step = lanes(), block = kChains * step;
  int64_t i = 0;
  for (; i + block <= in; i += block) {
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) {
      const T* at = weight + i + c * step;
      __builtin_prefetch(reinterpret_cast<const char*>(at) + kBytesAhead);
      const RowVector w = load_whole(at);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r)
        partial[r][c] = hn::MulAdd(w, hn::LoadU(kRowTag, x + r * row + i + c * step), partial[r][c]);
    }
  }
  for (; i < in; i += step) {
    const RowVector w = load(weight + i, in - i);
    for (int r = 0; r < kRows; ++r)
      partial[r][0] = hn::MulAdd(w, load(x + r * row + i, in - i), partial[r][0]);
  }
  for (int r = 0; r < kRows; ++r) {
    const RowVector low = hn::Add(partial[r][0], partial[r][1]), high = hn::Add(partial[r][2], partial[r][3]);
    sums[r] = sum(hn::Add(low, high));
  }
}

HWY_INLINE void put(float value, float* to) { *to = value; }
HWY_INLINE void put(float value, uint16_t* to) { *to = simd::bf16_from_float(value); }

template <int kRows, class T, class Y>
void columns(const Product& p, int64_t first, int64_t last) {
  thread_local simd::Scratch<float> wide;
  const float* x = static_cast<const float*>(p.x);
  if constexpr (!std::is_same_v<T, float>) {
    float* copy = wide.get(kRows * p.in);
    row_to_float(static_cast<const T*>(p.x), kRows * p.in, copy);
    x = copy;
  }
  for (int64_t column = first; column < last; ++column) {
    float sums[kRows];
    dot<kRows>(static_cast<const T*>(p.weight) + column * p.in, x, p.in, p.in, sums);
    for (int r = 0; r < kRows; ++r) put(sums[r], static_cast<Y*>(p.y) + r * p.out + column);
  }
}

template <class T, class Y>
void columns_of(const Product& p, int64_t first, int64_t last) {
  constexpr decltype(&columns<1, T, Y>) by_rows[] = {columns<1, T, Y>, columns<2, T, Y>, columns<3, T, Y>,
                                                     columns<4, T, Y>};
  static_assert(std::size(by_rows) == kMostRows);
  by_rows[p.rows - 1](p, first, last);
}

void product(const Product& p, int64_t first, int64_t last) {
  if (p.dtype == DType::kFloat32)
    columns_of<float, float>(p, first, last);
  else if (p.y_dtype == DType::kFloat32)
    columns_of<uint16_t, float>(p, first, last);
  else
    columns_of<uint16_t, uint16_t>(p, first, last);
}

}  // namespace longreach::few_rows::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longreach::few_rows {
HWY_EXPORT(product);

void forward(const Product& params) {
  if (params.rows == 0) return;
  // Sixteen pieces and more: whoever is done early takes from the others. Not so many that a stream never
  // forms.
  constexpr int64_t kPieces = 16, kSmallest = 4096, kLargest = 65536;  // bytes
  const int64_t row_bytes = std::max<int64_t>(1, params.in) * (params.dtype == DType::kFloat32 ? 4 : 2);
  const int64_t bytes = std::clamp(params.out * row_bytes / kPieces, kSmallest, kLargest);
  const int64_t piece = std::max<int64_t>(1, bytes / row_bytes);
  const auto run = HWY_DYNAMIC_DISPATCH(product);
  parallel_tiles((params.out + piece - 1) / piece,
                 [&](int64_t i) { run(params, i * piece, std::min(params.out, (i + 1) * piece)); });
}

}  // namespace longreach::few_rows
#endif
