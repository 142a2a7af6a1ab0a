// Exponentials of fp32 vectors, for every Highway target. Relative error at most 2e-7 where the result is
// normal; results below 2^-126 become 0, so that exp(-inf) = 0. NaN stays NaN. Include after hwy/highway.h in
// a file that foreach_target compiles once per target.
#if defined(LONGREACH_LAYERS_OPS_SIMD_VECTOR_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGREACH_LAYERS_OPS_SIMD_VECTOR_MATH_INL_H_
#undef LONGREACH_LAYERS_OPS_SIMD_VECTOR_MATH_INL_H_
#else
#define LONGREACH_LAYERS_OPS_SIMD_VECTOR_MATH_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace longreach::simd::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// x where it is NaN, else the larger or the smaller of both. x86's own instructions return their second
// argument for NaN; other targets may return the number.
template <class D>
HWY_INLINE hn::Vec<D> at_least([[maybe_unused]] D d, hn::Vec<D> bound, hn::Vec<D> x) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR
  return hn::Max(bound, x);
#else
  return hn::IfThenElse(hn::Lt(x, bound), bound, x);
#endif
}
template <class D>
HWY_INLINE hn::Vec<D> at_most([[maybe_unused]] D d, hn::Vec<D> bound, hn::Vec<D> x) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR
  return hn::Min(bound, x);
#else
  return hn::IfThenElse(hn::Gt(x, bound), bound, x);
#endif
}

// 2^f for |f| <= 1/2: minimax in relative error (9.2e-8) among polynomials of degree 5 that are 1 at 0.
template <class D>
HWY_INLINE hn::Vec<D> exp2_fraction(D d, hn::Vec<D> f) {
  auto p = hn::Set(d, 0.0013264727f);
  p = hn::MulAdd(p, f, hn::Set(d, 0.0096715126f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.0555073374f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.2402224209f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.6931469776f));
  return hn::MulAdd(p, f, hn::Set(d, 1.0f));
}

// Adding this rounds to an integer n and leaves n + 127, the biased exponent, in the low bits.
inline constexpr float kRoundToExponent = 12582912.0f + 127.0f;

// 2^n from `shifted` = n + kRoundToExponent.
template <class D>
HWY_INLINE hn::Vec<D> power_of_two(D d, hn::Vec<D> shifted) {
  const hn::RebindToSigned<D> di;
  return hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(di, shifted)));
}

// 2^x for x <= 127: the form for softmax and decays, whose exponents are not positive.
template <class D>
HWY_INLINE hn::Vec<D> exp2_bounded(D d, hn::Vec<D> x) {
  x = at_least(d, hn::Set(d, -127.0f), x);  // at -127 the biased exponent is 0
  const auto magic = hn::Set(d, kRoundToExponent);
  const auto shifted = hn::Add(x, magic);
  const auto f = hn::Sub(x, hn::Sub(shifted, magic));
  return hn::Mul(exp2_fraction(d, f), power_of_two(d, shifted));
}

// 2^x; +inf from x = 127.5.
template <class D>
HWY_INLINE hn::Vec<D> exp2(D d, hn::Vec<D> x) {
  return exp2_bounded(d, at_most(d, hn::Set(d, 128.0f), x));
}

// e^x; +inf above 88.37 = 127.5 log 2.
template <class D>
HWY_INLINE hn::Vec<D> exp(D d, hn::Vec<D> x) {
  constexpr float kLog2High = 0.693359375f, kLog2Low = -2.12194440e-4f, kLog2e = 1.44269504f;
  const auto magic = hn::Set(d, kRoundToExponent);
  x = at_most(d, hn::Set(d, 89.0f), at_least(d, hn::Set(d, -88.1f), x));
  const auto shifted = hn::MulAdd(x, hn::Set(d, kLog2e), magic);
  const auto n = hn::Sub(shifted, magic);
  auto f = hn::NegMulAdd(n, hn::Set(d, kLog2High), x);
  f = hn::NegMulAdd(n, hn::Set(d, kLog2Low), f);
  return hn::Mul(exp2_fraction(d, hn::Mul(f, hn::Set(d, kLog2e))), power_of_two(d, shifted));
}

}  // namespace longreach::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // LONGREACH_LAYERS_OPS_SIMD_VECTOR_MATH_INL_H_
