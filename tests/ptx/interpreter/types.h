// The scalar types of PTX and how a lane of a register holds them: 64-bit types in a uint64_t, everything
// else in the low bits of a uint32_t.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

namespace longreach::ptx {

enum class Type : uint8_t {
  none,
  pred,
  u8,
  s8,
  b8,
  u16,
  s16,
  b16,
  f16,
  bf16,
  u32,
  s32,
  b32,
  f32,
  tf32,
  f16x2,
  bf16x2,
  u64,
  s64,
  b64,
  f64
};

Type type_named(std::string_view name);  // Type::none when it names no type
unsigned size_of(Type type);             // bytes
inline bool is_wide(Type type) { return size_of(type) == 8; }
inline bool is_signed(Type t) { return t == Type::s8 || t == Type::s16 || t == Type::s32 || t == Type::s64; }
inline bool is_float(Type t) {
  return t == Type::f16 || t == Type::bf16 || t == Type::f32 || t == Type::tf32 || t == Type::f64;
}

struct Half {
  uint16_t bits;
};
struct Bfloat {
  uint16_t bits;
};

inline float to_float(Half h) { return static_cast<float>(std::bit_cast<_Float16>(h.bits)); }
inline float to_float(Bfloat b) { return std::bit_cast<float>(static_cast<uint32_t>(b.bits) << 16); }
inline float to_float(float x) { return x; }

// Round to nearest, ties to even; any NaN becomes the canonical one.
inline Half to_half(float x) {
  return std::isnan(x) ? Half{0x7fff} : Half{std::bit_cast<uint16_t>(static_cast<_Float16>(x))};
}
inline Half to_half(double x) {
  return std::isnan(x) ? Half{0x7fff} : Half{std::bit_cast<uint16_t>(static_cast<_Float16>(x))};
}
inline Bfloat to_bfloat(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;
  return {static_cast<uint16_t>((u & 0x7fffffff) > 0x7f800000 ? 0x7fff : rounded)};
}
inline float flush(float x) { return std::abs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

template <class T>
using Storage = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T>
T unpack(Storage<T> bits) {
  if constexpr (sizeof(T) == sizeof(bits)) {
    return std::bit_cast<T>(bits);
  } else if constexpr (sizeof(T) == 2) {
    return std::bit_cast<T>(static_cast<uint16_t>(bits));
  } else {
    return std::bit_cast<T>(static_cast<uint8_t>(bits));
  }
}

template <class T>
Storage<T> pack(T value) {
  if constexpr (sizeof(T) == sizeof(Storage<T>)) {
    return std::bit_cast<Storage<T>>(value);
  } else if constexpr (sizeof(T) == 2) {
    return std::bit_cast<uint16_t>(value);
  } else {
    return std::bit_cast<uint8_t>(value);
  }
}

}  // namespace longreach::ptx
