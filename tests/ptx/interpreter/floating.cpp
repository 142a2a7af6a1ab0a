// Floating-point arithmetic in f32, f64, f16, bf16 and packed pairs. Sums, products and fused multiply-adds
// round to nearest; approximate functions are the host's exact ones: a device may differ in the last bits.
#include <algorithm>
#include <numbers>

#include "tests/ptx/interpreter/decoder.h"
#include "tests/ptx/interpreter/lanes.h"

namespace longreach::ptx {

void decode_integer_binary(Decoder& d, Instruction& i, Type t, std::string_view name);
void decode_integer_mul(Decoder& d, Instruction& i, Type t, bool add);
void decode_integer_unary(Decoder& d, Instruction& i, Type t, bool negate);
bool is_floating_family(Type t);

namespace {

struct Add {
  template <class T>
  T operator()(T a, T b) const {
    return a + b;
  }
};
struct Subtract {
  template <class T>
  T operator()(T a, T b) const {
    return a - b;
  }
};
struct Multiply {
  template <class T>
  T operator()(T a, T b) const {
    return a * b;
  }
};
struct Fma {
  float operator()(float a, float b, float c) const { return __builtin_fmaf(a, b, c); }
  double operator()(double a, double b, double c) const { return __builtin_fma(a, b, c); }
};
struct Divide {
  template <class T>
  T operator()(T a, T b) const {
    return a / b;
  }
};
// A NaN loses against a number; of zeros, -0 is the smaller.
struct Minimum {
  template <class T>
  T operator()(T a, T b) const {
    const T least = a < b || (a == b && std::signbit(a)) ? a : b;
    return a != a ? b : b != b ? a : least;
  }
};
struct Maximum {
  template <class T>
  T operator()(T a, T b) const {
    const T most = a > b || (a == b && !std::signbit(a)) ? a : b;
    return a != a ? b : b != b ? a : most;
  }
};
template <class F>
struct KeepNan {
  template <class T>
  T operator()(T a, T b) const {
    return a != a || b != b ? std::numeric_limits<T>::quiet_NaN() : F{}(a, b);
  }
};
struct Negate {
  template <class T>
  T operator()(T a) const {
    return -a;
  }
};
struct Absolute {
  template <class T>
  T operator()(T a) const {
    return std::abs(a);
  }
};
struct Exp2 {
  float operator()(float a) const { return std::exp2(a); }
};
struct Log2 {
  float operator()(float a) const { return std::log2(a); }
};
struct Sine {
  float operator()(float a) const { return std::sin(a); }
};
struct Cosine {
  float operator()(float a) const { return std::cos(a); }
};
struct Tanh {
  float operator()(float a) const { return std::tanh(a); }
};
struct Root {
  template <class T>
  T operator()(T a) const {
    return std::sqrt(a);
  }
};
struct ReciprocalRoot {
  template <class T>
  T operator()(T a) const {
    return T{1} / std::sqrt(a);
  }
};
struct Reciprocal {
  template <class T>
  T operator()(T a) const {
    return T{1} / a;
  }
};
// The sign of the first operand on the second one's magnitude.
struct CopySign {
  template <class T>
  T operator()(T a, T b) const {
    return std::copysign(b, a);
  }
};

template <class F>
struct Flushed {
  template <class... A>
  float operator()(A... a) const {
    return flush(F{}(flush(a)...));
  }
};
template <class F>
struct Saturated {
  template <class... A>
  float operator()(A... a) const {
    const float x = F{}(a...);
    return x > 0 ? std::min(x, 1.0f) : 0.0f;
  }
};
template <class F>
struct Rectified {
  template <class... A>
  float operator()(A... a) const {
    const float x = F{}(a...);
    return x != x ? x : std::max(x, 0.0f);
  }
};

// 16-bit values: sums and products in double are exact enough to round once.
template <class H>
double widened(H h) {
  return to_float(h);
}
template <class H>
H narrowed(double x) {
  if constexpr (std::is_same_v<H, Half>) return to_half(x);
  // The double is no tie unless it is one exactly; rounding it to odd keeps that through the float.
  float f = static_cast<float>(x);
  if (static_cast<double>(f) != x && !(std::bit_cast<uint32_t>(f) & 1) && std::isfinite(f)) {
    f = std::nextafter(f, x > f ? HUGE_VALF : -HUGE_VALF);
  }
  return std::bit_cast<H>(to_bfloat(f).bits);
}
struct Exp2Double {
  double operator()(double a) const { return std::exp2(a); }
};
struct TanhDouble {
  double operator()(double a) const { return std::tanh(a); }
};
template <class F>
struct RectifiedDouble {
  template <class... A>
  double operator()(A... a) const {
    const double x = F{}(a...);
    return x != x ? x : std::max(x, 0.0);
  }
};
template <class F, class H>
struct Narrow {
  template <class... A>
  H operator()(A... a) const {
    return narrowed<H>(F{}(widened(a)...));
  }
};
template <class F, class H>
struct Pair {
  template <class... A>
  uint32_t operator()(A... a) const {
    const H low = narrowed<H>(F{}(widened(H{static_cast<uint16_t>(a)})...));
    const H high = narrowed<H>(F{}(widened(H{static_cast<uint16_t>(a >> 16)})...));
    return low.bits | uint32_t{high.bits} << 16;
  }
};

template <class F, class R, size_t... N>
Handler repeated(std::index_sequence<N...>) {
  return map<F, R, std::conditional_t<N == N, R, R>...>;
}
template <class F, class R, size_t Count>
Handler same() {
  return repeated<F, R>(std::make_index_sequence<Count>{});
}

struct Modifiers {
  bool ftz = false, saturate = false, rectify = false;
};

template <class F, size_t Count>
Handler single(Modifiers m) {
  if (m.rectify) return same<Rectified<F>, float, Count>();
  if (m.saturate)
    return m.ftz ? same<Saturated<Flushed<F>>, float, Count>() : same<Saturated<F>, float, Count>();
  return m.ftz ? same<Flushed<F>, float, Count>() : same<F, float, Count>();
}

template <class F, size_t Count>
Handler narrow(Type t) {
  switch (t) {
    case Type::f16:
      return same<Narrow<F, Half>, Half, Count>();
    case Type::bf16:
      return same<Narrow<F, Bfloat>, Bfloat, Count>();
    case Type::f16x2:
      return same<Pair<F, Half>, uint32_t, Count>();
    case Type::bf16x2:
      return same<Pair<F, Bfloat>, uint32_t, Count>();
    default:
      return nullptr;
  }
}

template <class F, size_t Count>
Handler any(Type t, Modifiers m) {
  if (t == Type::f32) return single<F, Count>(m);
  if (t == Type::f64) return same<F, double, Count>();
  return m.rectify ? narrow<RectifiedDouble<F>, Count>(t) : narrow<F, Count>(t);
}

Modifiers take_modifiers(Decoder& d) {
  Modifiers m;
  d.allow({"rn", "approx", "full"});
  m.ftz = d.has("ftz");
  m.saturate = d.has("sat");
  m.rectify = d.has("relu");
  return m;
}

void take_operands(Decoder& d, Instruction& i, Type t, unsigned sources) {
  i.destination = d.destination(0, t);
  for (unsigned k = 0; k < sources; ++k) i.source[k] = d.source(k + 1, t);
}

template <class F>
void decode_binary(Decoder& d, Instruction& i, std::string_view name) {
  const Type t = d.type();
  if (!is_floating_family(t)) return decode_integer_binary(d, i, t, name);
  i.handler = any<F, 2>(t, take_modifiers(d));
  take_operands(d, i, t, 2);
}

template <class F>
void decode_extremum(Decoder& d, Instruction& i, std::string_view name) {
  const Type t = d.type();
  if (!is_floating_family(t)) return decode_integer_binary(d, i, t, name);
  const Modifiers m = take_modifiers(d);
  i.handler = d.has("NaN") ? any<KeepNan<F>, 2>(t, m) : any<F, 2>(t, m);
  if (t == Type::f32 && d.operands() == 4) d.fail("three operands are not supported");
  take_operands(d, i, t, 2);
}

template <class F>
void decode_sign(Decoder& d, Instruction& i, bool negate) {
  const Type t = d.type();
  if (!is_floating_family(t)) return decode_integer_unary(d, i, t, negate);
  i.handler = any<F, 1>(t, take_modifiers(d));
  take_operands(d, i, t, 1);
}

void decode_fma(Decoder& d, Instruction& i) {
  const Type t = d.type();
  if (!is_floating_family(t)) return decode_integer_mul(d, i, t, true);
  i.handler = any<Fma, 3>(t, take_modifiers(d));
  take_operands(d, i, t, 3);
}

template <class F>
void decode_function(Decoder& d, Instruction& i) {
  const Type t = d.type();
  const Modifiers m = take_modifiers(d);
  if (t == Type::f32) i.handler = single<F, 1>(m);
  if constexpr (std::is_same_v<F, Root> || std::is_same_v<F, ReciprocalRoot> ||
                std::is_same_v<F, Reciprocal>) {
    if (t == Type::f64) i.handler = same<F, double, 1>();
  }
  if constexpr (std::is_same_v<F, Exp2>) {
    if (!i.handler) i.handler = narrow<Exp2Double, 1>(t);
  }
  if constexpr (std::is_same_v<F, Tanh>) {
    if (!i.handler) i.handler = narrow<TanhDouble, 1>(t);
  }
  take_operands(d, i, t, 1);
}

}  // namespace

void add_floating(DecodeTable& table) {
  table["add"] = [](Decoder& d, Instruction& i) { decode_binary<Add>(d, i, "add"); };
  table["sub"] = [](Decoder& d, Instruction& i) { decode_binary<Subtract>(d, i, "sub"); };
  table["div"] = [](Decoder& d, Instruction& i) { decode_binary<Divide>(d, i, "div"); };
  table["min"] = [](Decoder& d, Instruction& i) { decode_extremum<Minimum>(d, i, "min"); };
  table["max"] = [](Decoder& d, Instruction& i) { decode_extremum<Maximum>(d, i, "max"); };
  table["neg"] = [](Decoder& d, Instruction& i) { decode_sign<Negate>(d, i, true); };
  table["abs"] = [](Decoder& d, Instruction& i) { decode_sign<Absolute>(d, i, false); };
  table["fma"] = decode_fma;
  table["mad"] = decode_fma;
  table["mul"] = [](Decoder& d, Instruction& i) {
    const Type t = d.type();
    if (!is_floating_family(t)) return decode_integer_mul(d, i, t, false);
    i.handler = any<Multiply, 2>(t, take_modifiers(d));
    take_operands(d, i, t, 2);
  };
  table["copysign"] = [](Decoder& d, Instruction& i) {
    const Type t = d.type();
    i.handler = t == Type::f32   ? same<CopySign, float, 2>()
                : t == Type::f64 ? same<CopySign, double, 2>()
                                 : nullptr;
    take_operands(d, i, t, 2);
  };
  table["ex2"] = decode_function<Exp2>;
  table["lg2"] = decode_function<Log2>;
  table["sin"] = decode_function<Sine>;
  table["cos"] = decode_function<Cosine>;
  table["tanh"] = decode_function<Tanh>;
  table["sqrt"] = decode_function<Root>;
  table["rsqrt"] = decode_function<ReciprocalRoot>;
  table["rcp"] = decode_function<Reciprocal>;
}

}  // namespace longreach::ptx
