// cvt: between integers, floats and their packed pairs, with the roundings that nvcc emits.
#include <algorithm>
#include <cfenv>

#include "tests/ptx/interpreter/decoder.h"
#include "tests/ptx/interpreter/lanes.h"

namespace longreach::ptx {
namespace {

enum Flags : uint8_t { kFtz = 1, kSaturate = 2, kRectify = 4, kNearestAway = 8, kToInteger = 16 };
enum class Rounding : uint8_t { nearest, zero, down, up };

double rounded(double x, Rounding r) {
  switch (r) {
    case Rounding::zero:
      return std::trunc(x);
    case Rounding::down:
      return std::floor(x);
    case Rounding::up:
      return std::ceil(x);
    default:
      return std::nearbyint(x);
  }
}

// TF32 keeps 10 bits of the mantissa; .rna rounds halves away from zero.
float to_tf32(float x, bool away) {
  if (!std::isfinite(x)) return x;
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const uint32_t half = away ? 0x1000u : 0xfffu + (u >> 13 & 1);
  return std::bit_cast<float>((u + half) & ~0x1fffu);
}

// A float in the narrower precision of `type`, rounded to nearest or towards zero.
double narrowed(double x, Type type, Rounding rounding) {
  float f = static_cast<float>(x);
  if (type == Type::f64) return x;
  if (rounding == Rounding::zero) {
    if (std::isfinite(x) && std::abs(static_cast<double>(f)) > std::abs(x)) f = std::nextafter(f, 0.0f);
    if (type == Type::f32) return f;
    if (type == Type::bf16) return std::bit_cast<float>(std::bit_cast<uint32_t>(f) & 0xffff0000u);
    const float near = to_float(to_half(f));
    return std::isfinite(f) && std::abs(near) > std::abs(f)
               ? to_float(Half{static_cast<uint16_t>(to_half(f).bits - 1)})
               : near;
  }
  switch (type) {
    case Type::f16:
      return to_float(to_half(x));
    case Type::bf16:
      return to_float(to_bfloat(f));
    default:
      return f;
  }
}

uint64_t float_bits(double x, Type type) {
  switch (type) {
    case Type::f16:
      return to_half(x).bits;
    case Type::bf16:
      return to_bfloat(static_cast<float>(x)).bits;
    case Type::f64:
      return std::bit_cast<uint64_t>(x);
    default:
      return std::bit_cast<uint32_t>(static_cast<float>(x));
  }
}

double float_value(uint64_t bits, Type type) {
  switch (type) {
    case Type::f16:
      return to_float(Half{static_cast<uint16_t>(bits)});
    case Type::bf16:
      return to_float(Bfloat{static_cast<uint16_t>(bits)});
    case Type::f64:
      return std::bit_cast<double>(bits);
    default:
      return std::bit_cast<float>(static_cast<uint32_t>(bits));
  }
}

int64_t extended(uint64_t bits, Type type) {
  switch (type) {
    case Type::u8:
    case Type::b8:
      return static_cast<uint8_t>(bits);
    case Type::s8:
      return static_cast<int8_t>(bits);
    case Type::u16:
    case Type::b16:
      return static_cast<uint16_t>(bits);
    case Type::s16:
      return static_cast<int16_t>(bits);
    case Type::u32:
    case Type::b32:
      return static_cast<uint32_t>(bits);
    case Type::s32:
      return static_cast<int32_t>(bits);
    default:
      return static_cast<int64_t>(bits);
  }
}

// Conversions to integers saturate; NaN gives 0 (for 64 bits, the highest bit).
uint64_t to_integer(double x, Type type) {
  const unsigned bits = 8 * size_of(type);
  if (std::isnan(x)) return bits == 64 ? 1ull << 63 : 0;
  if (is_signed(type)) {
    const double limit = std::ldexp(1.0, static_cast<int>(bits) - 1);
    if (x >= limit) return bits == 64 ? INT64_MAX : (1ull << (bits - 1)) - 1;
    return static_cast<uint64_t>(static_cast<int64_t>(std::max(x, -limit)));
  }
  if (x >= std::ldexp(1.0, static_cast<int>(bits))) return bits == 64 ? ~0ull : (1ull << bits) - 1;
  return static_cast<uint64_t>(std::max(x, 0.0));
}

uint64_t saturated(int64_t x, Type from, Type to) {
  const unsigned bits = 8 * size_of(to);
  if (from == Type::u64 && x < 0) x = INT64_MAX;
  if (bits == 64) return static_cast<uint64_t>(is_signed(to) ? x : std::max<int64_t>(x, 0));
  const int64_t low = is_signed(to) ? -(1ll << (bits - 1)) : 0;
  const int64_t high = is_signed(to) ? (1ll << (bits - 1)) - 1 : (1ll << bits) - 1;
  return static_cast<uint64_t>(std::clamp(x, low, high));
}

uint64_t convert(uint64_t bits, const Instruction& i) {
  const Type to = i.type, from = i.type2;
  const auto rounding = static_cast<Rounding>(i.offset[0]);
  if (!is_float(from) && !is_float(to)) {
    const int64_t x = extended(bits, from);
    return i.flags & kSaturate ? saturated(x, from, to) : static_cast<uint64_t>(x);
  }
  if (!is_float(from)) {
    const int64_t x = extended(bits, from);
    // Straight to float: through double would round 64-bit values twice.
    if (to == Type::f32 && rounding == Rounding::nearest) {
      return float_bits(
          from == Type::u64 ? static_cast<float>(static_cast<uint64_t>(x)) : static_cast<float>(x), to);
    }
    return float_bits(
        narrowed(from == Type::u64 ? static_cast<double>(static_cast<uint64_t>(x)) : static_cast<double>(x),
                 to, rounding),
        to);
  }
  double x = float_value(bits, from);
  if ((i.flags & kFtz) && from == Type::f32) x = flush(static_cast<float>(x));
  if (!is_float(to)) return to_integer(rounded(x, rounding), to);
  if (to == Type::tf32) return float_bits(to_tf32(static_cast<float>(x), i.flags & kNearestAway), to);
  if (i.flags & kToInteger) x = rounded(x, rounding);
  x = narrowed(x, to, i.flags & kToInteger ? Rounding::nearest : rounding);
  if (i.flags & kSaturate) x = x > 0 ? std::min(x, 1.0) : 0.0;
  if ((i.flags & kRectify) && !std::isnan(x)) x = std::max(x, 0.0);
  if ((i.flags & kFtz) && to == Type::f32) x = flush(static_cast<float>(x));
  return float_bits(x, to);
}

// The register is extended by the sign of the type to its own width.
uint64_t widened(uint64_t bits, Type type) {
  return is_float(type) ? bits : static_cast<uint64_t>(extended(bits, type));
}

Step convert_any(Warp& w, const Instruction& i, uint32_t mask) {
  for_lanes(mask, [&](unsigned l) {
    w.set_value(i.destination, l, widened(convert(w.value(i.source[0], l), i), i.type));
  });
  return Step::next;
}

template <class H, bool Relu>
struct PackPair {
  uint32_t operator()(float high, float low) const {
    if constexpr (Relu) {
      high = high < 0 ? 0 : high;
      low = low < 0 ? 0 : low;
    }
    if constexpr (std::is_same_v<H, Half>) return to_half(low).bits | uint32_t{to_half(high).bits} << 16;
    return to_bfloat(low).bits | uint32_t{to_bfloat(high).bits} << 16;
  }
};
struct SignedToFloat {
  float operator()(int32_t a) const { return static_cast<float>(a); }
};
struct Extend {
  template <class T>
  uint64_t operator()(T a) const {
    return static_cast<uint64_t>(static_cast<int64_t>(a));
  }
};
struct Truncate {
  uint32_t operator()(uint64_t a) const { return static_cast<uint32_t>(a); }
};
struct WidenHalf {
  template <class H>
  float operator()(H h) const {
    return to_float(h);
  }
};

// The conversions of inner loops, as vector code.
Handler quick(const Instruction& i, bool narrow_source) {
  if (i.flags) return nullptr;
  const Type to = i.type, from = i.type2;
  if (i.destination.wide && !i.source[0].wide) {
    if (is_wide(to) && from == Type::u32) return map<Extend, uint64_t, uint32_t>;
    if (is_wide(to) && from == Type::s32) return map<Extend, uint64_t, int32_t>;
  }
  if (i.source[0].wide && !i.destination.wide && size_of(to) == 4 && size_of(from) == 8 && !is_float(to) &&
      !is_float(from)) {
    return map<Truncate, uint32_t, uint64_t>;
  }
  if (!narrow_source) return nullptr;
  if (to == Type::f32 && from == Type::s32 && static_cast<Rounding>(i.offset[0]) == Rounding::nearest)
    return map<SignedToFloat, float, int32_t>;
  if (to == Type::f32 && from == Type::f16) return map<WidenHalf, float, Half>;
  if (to == Type::f32 && from == Type::bf16) return map<WidenHalf, float, Bfloat>;
  return nullptr;
}

void decode_pair(Decoder& d, Instruction& i, Type to) {
  const bool relu = d.has("relu");
  if (d.optional_type() != Type::f32) d.fail("packs f32 alone");
  if (to == Type::f16x2) {
    i.handler = relu ? map<PackPair<Half, true>, uint32_t, float, float>
                     : map<PackPair<Half, false>, uint32_t, float, float>;
  } else {
    i.handler = relu ? map<PackPair<Bfloat, true>, uint32_t, float, float>
                     : map<PackPair<Bfloat, false>, uint32_t, float, float>;
  }
  i.destination = d.destination(0, to);
  for (unsigned k = 0; k < 2; ++k) i.source[k] = d.source(k + 1, Type::f32);
}

void decode_cvt(Decoder& d, Instruction& i) {
  const bool integer_rounding = d.has("rni");
  Rounding r = Rounding::nearest;
  if (d.has("rzi") || d.has("rz")) r = Rounding::zero;
  if (d.has("rmi")) r = Rounding::down;
  if (d.has("rpi")) r = Rounding::up;
  (void)integer_rounding;
  d.has("rn");
  if (d.has("rna")) i.flags |= kNearestAway;
  if (d.has("ftz")) i.flags |= kFtz;
  if (d.has("sat")) i.flags |= kSaturate;
  const Type to = d.type();
  if (to == Type::f16x2 || to == Type::bf16x2) {
    if (r != Rounding::nearest || i.flags) d.fail("packing with this rounding is not supported");
    decode_pair(d, i, to);
    return;
  }
  if (d.has("relu")) i.flags |= kRectify;
  i.type = to;
  i.type2 = d.type();
  // Rounding to an integral value in the same type: cvt.rni.f32.f32
  const std::string& name = d.opcode();
  if (is_float(to) && is_float(i.type2) &&
      (name.find(".rni") != std::string::npos || name.find(".rzi") != std::string::npos ||
       name.find(".rmi") != std::string::npos || name.find(".rpi") != std::string::npos)) {
    i.flags |= kToInteger;
  }
  i.offset[0] = static_cast<int64_t>(r);
  const Type written = to == Type::tf32 ? Type::b32 : to;
  i.destination = d.operand(0) == "_" ? d.destination(0, written) : d.loose(d.operand(0), written);
  i.source[0] = d.loose(d.operand(1), i.type2);
  i.handler = quick(i, !i.source[0].wide);
  if (!i.handler) i.handler = convert_any;
}

}  // namespace

void add_convert(DecodeTable& table) { table["cvt"] = decode_cvt; }

}  // namespace longreach::ptx
