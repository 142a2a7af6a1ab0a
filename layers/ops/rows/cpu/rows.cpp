// RMSNorm and silu(gate) up on CPUs, one pass over memory each way (RMSNorm: two over a row that is in the
// first cache by then). From plain tensor operations each would be four to eight passes with as many results
// of full size.
#include <algorithm>
#include <cmath>

#include "layers/ops/cpu/parallel.h"
#include "layers/ops/rows/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/rows/cpu/rows.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "layers/ops/cpu/rows-inl.h"
#include "layers/ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::row_kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace kernel = simd::HWY_NAMESPACE;
using namespace kernel;

using Vector = RowVector;
constexpr RowTag kTag;

HWY_INLINE Vector weight_at(const float* weight, int64_t i, int64_t count) {
  return weight == nullptr ? hn::Set(kTag, 1.0f) : load(weight + i, count);
}

template <class X, class Y>
void norm_row(const Norm& p, int64_t row) {
  const X* x = static_cast<const X*>(p.x.data) + row * p.size;
  Y* y = static_cast<Y*>(p.y.data) + row * p.size;
  Vector even = hn::Zero(kTag), odd = hn::Zero(kTag);  // two chains of additions, each half as long
  for_vectors(p.size, [&](int64_t i, int64_t count) {
    const Vector v = load(x + i, count);
    const Vector next = hn::MulAdd(v, v, even);
    even = odd;
    odd = next;
  });
  const float mean = sum(hn::Add(even, odd)) / static_cast<float>(p.size);
  const float rstd = 1.0f / std::sqrt(mean + p.eps);
  p.rstd[row] = rstd;
  const Vector scale = hn::Set(kTag, rstd);
  for_vectors(p.size, [&](int64_t i, int64_t count) {
    const Vector xhat = hn::Mul(load(x + i, count), scale);
    store(hn::Mul(xhat, weight_at(p.weight, i, count)), y + i, count);
  });
}

template <class X, class DY>
void norm_gradient_row(const NormGradient& p, int64_t row, float* dweight) {
  const X* x = static_cast<const X*>(p.x.data) + row * p.size;
  const DY* dy = static_cast<const DY*>(p.dy.data) + row * p.size;
  const Vector scale = hn::Set(kTag, p.rstd[row]);
  Vector even = hn::Zero(kTag), odd = hn::Zero(kTag);
  for_vectors(p.size, [&](int64_t i, int64_t count) {
    const Vector part = hn::Mul(load(dy + i, count), hn::Mul(load(x + i, count), scale));
    if (dweight != nullptr) store(hn::Add(load(dweight + i, count), part), dweight + i, count);
    const Vector next = hn::MulAdd(part, weight_at(p.weight, i, count), even);
    even = odd;
    odd = next;
  });
  if (p.dx.data == nullptr) return;
  X* dx = static_cast<X*>(p.dx.data) + row * p.size;
  const Vector mean = hn::Set(kTag, sum(hn::Add(even, odd)) / static_cast<float>(p.size));
  for_vectors(p.size, [&](int64_t i, int64_t count) {
    const Vector g = hn::Mul(load(dy + i, count), weight_at(p.weight, i, count));
    const Vector xhat = hn::Mul(load(x + i, count), scale);
    store(hn::Mul(hn::NegMulAdd(xhat, mean, g), scale), dx + i, count);
  });
}

HWY_INLINE Vector sigmoid(Vector x) {
  const Vector one = hn::Set(kTag, 1.0f);
  return hn::Div(one, hn::Add(one, kernel::exp(kTag, hn::Neg(x))));
}

template <class T>
void silu_product(const SiluProduct& p, int64_t first, int64_t last) {
  const T *gate = static_cast<const T*>(p.gate.data) + first, *up = static_cast<const T*>(p.up.data) + first;
  T* y = static_cast<T*>(p.y.data) + first;
  for_vectors(last - first, [&](int64_t i, int64_t count) {
    const Vector g = load(gate + i, count);
    store(hn::Mul(hn::Mul(g, sigmoid(g)), load(up + i, count)), y + i, count);
  });
}

template <class T>
void silu_product_gradient(const SiluProductGradient& p, int64_t first, int64_t last) {
  const T *gate = static_cast<const T*>(p.gate.data), *up = static_cast<const T*>(p.up.data),
          *dy = static_cast<const T*>(p.dy.data);
  T *dgate = static_cast<T*>(p.dgate.data), *dup = static_cast<T*>(p.dup.data);
  const Vector one = hn::Set(kTag, 1.0f);
  for_vectors(last - first, [&](int64_t offset, int64_t count) {
    const int64_t i = first + offset;
    const Vector g = load(gate + i, count), s = sigmoid(g), d = load(dy + i, count);
    if (dup != nullptr) store(hn::Mul(d, hn::Mul(g, s)), dup + i, count);
    if (dgate == nullptr) return;
    const Vector slope = hn::Mul(s, hn::MulAdd(g, hn::Sub(one, s), one));
    store(hn::Mul(hn::Mul(d, load(up + i, count)), slope), dgate + i, count);
  });
}

bool narrow(DType dtype) { return dtype == DType::kBFloat16; }

void norm_rows(const Norm& p, int64_t first, int64_t last) {
  const auto row = narrow(p.x.dtype)
                       ? (narrow(p.y.dtype) ? norm_row<uint16_t, uint16_t> : norm_row<uint16_t, float>)
                       : (narrow(p.y.dtype) ? norm_row<float, uint16_t> : norm_row<float, float>);
  for (int64_t i = first; i < last; ++i) row(p, i);
}

void norm_gradient_rows(const NormGradient& p, int64_t first, int64_t last, float* dweight) {
  const auto row =
      narrow(p.x.dtype)
          ? (narrow(p.dy.dtype) ? norm_gradient_row<uint16_t, uint16_t> : norm_gradient_row<uint16_t, float>)
          : (narrow(p.dy.dtype) ? norm_gradient_row<float, uint16_t> : norm_gradient_row<float, float>);
  if (dweight != nullptr) std::fill(dweight, dweight + p.size, 0.0f);
  for (int64_t i = first; i < last; ++i) row(p, i, dweight);
}

void silu_range(const SiluProduct& p, int64_t first, int64_t last) {
  (narrow(p.y.dtype) ? silu_product<uint16_t> : silu_product<float>)(p, first, last);
}

void silu_gradient_range(const SiluProductGradient& p, int64_t first, int64_t last) {
  (narrow(p.dy.dtype) ? silu_product_gradient<uint16_t> : silu_product_gradient<float>)(p, first, last);
}

}  // namespace longreach::row_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longreach::row_kernels {
namespace {
constexpr int64_t kRowsAPart = 64, kElementsAPiece = 16384;
}  // namespace

HWY_EXPORT(norm_rows);
HWY_EXPORT(norm_gradient_rows);
HWY_EXPORT(silu_range);
HWY_EXPORT(silu_gradient_range);

int64_t norm_parts(int64_t rows) { return (rows + kRowsAPart - 1) / kRowsAPart; }

void forward(const Norm& params) {
  const auto run = HWY_DYNAMIC_DISPATCH(norm_rows);
  const int64_t rows_a_piece = std::max<int64_t>(1, kElementsAPiece / std::max<int64_t>(1, params.size));
  parallel_for(0, params.rows, rows_a_piece, [&](int64_t first, int64_t last) { run(params, first, last); });
}

void backward(const NormGradient& params) {
  const auto run = HWY_DYNAMIC_DISPATCH(norm_gradient_rows);
  parallel_for(0, norm_parts(params.rows), 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part)
      run(params, part * kRowsAPart, std::min(params.rows, (part + 1) * kRowsAPart),
          params.dweight == nullptr ? nullptr : params.dweight + part * params.size);
  });
}

void forward(const SiluProduct& params) {
  const auto run = HWY_DYNAMIC_DISPATCH(silu_range);
  parallel_for(0, params.count, kElementsAPiece,
               [&](int64_t first, int64_t last) { run(params, first, last); });
}

void backward(const SiluProductGradient& params) {
  const auto run = HWY_DYNAMIC_DISPATCH(silu_gradient_range);
  parallel_for(0, params.count, kElementsAPiece,
               [&](int64_t first, int64_t last) { run(params, first, last); });
}

}  // namespace longreach::row_kernels
#endif
