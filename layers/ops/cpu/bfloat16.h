// One bf16 value to and from fp32, as bits: for the ends of rows and for tests.
#pragma once
#include <bit>
#include <cstdint>

namespace longreach::simd {

inline float float_from_bf16(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

// To nearest, ties to even; NaN stays a (quiet) NaN.
inline uint16_t bf16_from_float(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if (x != x) return static_cast<uint16_t>((bits | 0x00400000u) >> 16);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace longreach::simd
