// The turn of the rotary embedding on CPUs, one pass over memory. From plain tensor operations it would be
// ten, whose calls alone cost more than the arithmetic where a token is decoded.
#include <algorithm>

#include "layers/ops/cpu/parallel.h"
#include "layers/ops/rows/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/rows/cpu/rotary.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "layers/ops/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::row_kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using namespace simd::HWY_NAMESPACE;

template <class T>
void turn(const Rotary& p, int64_t first, int64_t last) {
  const RowVector direction = hn::Set(kRowTag, p.direction);
  for (int64_t token = first; token < last; ++token) {
    const float *cos = p.cos + token * p.half, *sin = p.sin + token * p.half;
    for (int64_t head = 0; head < p.heads; ++head) {
      const T* x = static_cast<const T*>(p.x.data) + token * p.x_token + head * p.x_head;
      T* y = static_cast<T*>(p.y.data) + (token * p.heads + head) * 2 * p.half;
      for_vectors(p.half, [&](int64_t i, int64_t count) {
        const RowVector c = load(cos + i, count), s = hn::Mul(load(sin + i, count), direction),
                        left = load(x + i, count), right = load(x + p.half + i, count);
        store(hn::NegMulAdd(right, s, hn::Mul(left, c)), y + i, count);
        store(hn::MulAdd(left, s, hn::Mul(right, c)), y + p.half + i, count);
      });
    }
  }
}

void turn_tokens(const Rotary& p, int64_t first, int64_t last) {
  (p.x.dtype == DType::kBFloat16 ? turn<uint16_t> : turn<float>)(p, first, last);
}

}  // namespace longreach::row_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longreach::row_kernels {
HWY_EXPORT(turn_tokens);

void forward(const Rotary& params) {
  constexpr int64_t kElementsAPiece = 16384;
  const auto run = HWY_DYNAMIC_DISPATCH(turn_tokens);
  const int64_t width = std::max<int64_t>(1, params.heads * 2 * params.half);
  parallel_for(0, params.tokens, std::max<int64_t>(1, kElementsAPiece / width),
               [&](int64_t first, int64_t last) { run(params, first, last); });
}

}  // namespace longreach::row_kernels
#endif
