// ggml's block layouts. Sums and products are taken in float32 in ggml's order, so that results are its own.
#include "checkpoints/formats/gguf/ggml_type.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/error.h"

namespace longreach {
namespace {

constexpr int64_t kSuper = 256;  // values of a K-quant's block

template <class T>
T load(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

float half(const uint8_t* from) { return c10::detail::fp16_ieee_to_fp32_value(load<uint16_t>(from)); }

void from_f32(const uint8_t* from, int64_t n, float* to) {
  std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
}

void from_f16(const uint8_t* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = half(from + 2 * i);
}

void from_bf16(const uint8_t* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = c10::detail::f32_from_bits(load<uint16_t>(from + 2 * i));
}

// Blocks of 32 values of 4 bits, low ones first: value i and value i + 16 share a byte. `high`: a fifth bit
// of each, or null.
template <class Value>
void nibbles(const uint8_t* from, const uint8_t* high, float* to, const Value& value) {
  const uint32_t fifth = high ? load<uint32_t>(high) : 0;
  for (int i = 0; i < 16; ++i) {
    to[i] = value((from[i] & 15) | static_cast<int>(fifth >> i & 1) << 4);
    to[i + 16] = value((from[i] >> 4) | static_cast<int>(fifth >> (i + 16) & 1) << 4);
  }
}

void from_q4_0(const uint8_t* from, int64_t blocks, float* to) {
  for (int64_t b = 0; b < blocks; ++b, from += 18, to += 32)
    nibbles(from + 2, nullptr, to, [d = half(from)](int q) { return static_cast<float>(q - 8) * d; });
}

void from_q4_1(const uint8_t* from, int64_t blocks, float* to) {
  for (int64_t b = 0; b < blocks; ++b, from += 20, to += 32)
    nibbles(from + 4, nullptr, to,
            [d = half(from), m = half(from + 2)](int q) { return static_cast<float>(q) * d + m; });
}

void from_q5_0(const uint8_t* from, int64_t blocks, float* to) {
  for (int64_t b = 0; b < blocks; ++b, from += 22, to += 32)
    nibbles(from + 6, from + 2, to, [d = half(from)](int q) { return static_cast<float>(q - 16) * d; });
}

void from_q5_1(const uint8_t* from, int64_t blocks, float* to) {
  for (int64_t b = 0; b < blocks; ++b, from += 24, to += 32)
    nibbles(from + 8, from + 4, to,
            [d = half(from), m = half(from + 2)](int q) { return static_cast<float>(q) * d + m; });
}

void from_q8_0(const uint8_t* from, int64_t blocks, float* to) {
  for (int64_t b = 0; b < blocks; ++b, from += 34, to += 32) {
    const float d = half(from);
    for (int i = 0; i < 32; ++i) to[i] = static_cast<float>(std::bit_cast<int8_t>(from[2 + i])) * d;
  }
}

// Scale and minimum, 6 bits each, of the eight runs of 32 values in a block of Q4_K and Q5_K.
struct ScaleMin {
  int scale, min;
};
ScaleMin scale_min(const uint8_t* packed, int run) {
  if (run < 4) return {packed[run] & 63, packed[run + 4] & 63};
  return {(packed[run + 4] & 15) | (packed[run - 4] >> 6) << 4, (packed[run + 4] >> 4) | (packed[run] >> 6)
                                                                                             << 4};
}

// d, dmin, 12 bytes of scales, [32 bytes of fifth bits,] 128 bytes of low bits.
template <bool kFive>
void from_q45_k(const uint8_t* from, int64_t blocks, float* to) {
  constexpr int64_t kBytes = kFive ? 176 : 144;
  for (int64_t b = 0; b < blocks; ++b, from += kBytes) {
    const float d = half(from), dmin = half(from + 2);
    const uint8_t *high = from + 16, *low = from + (kFive ? 48 : 16);
    for (int run = 0; run < 8; ++run) {
      const auto [scale, min] = scale_min(from + 4, run);
      const float step = d * static_cast<float>(scale), base = dmin * static_cast<float>(min);
      const uint8_t* bits = low + run / 2 * 32;
      for (int i = 0; i < 32; ++i) {
        int q = bits[i] >> (run % 2 * 4) & 15;
        if constexpr (kFive) q |= (high[i] >> run & 1) << 4;
        *to++ = step * static_cast<float>(q) - base;
      }
    }
  }
}

// 128 bytes of low 4 bits, 64 of high 2 bits, 16 scales, d.
void from_q6_k(const uint8_t* from, int64_t blocks, float* to) {
  for (int64_t b = 0; b < blocks; ++b, from += 210) {
    const float d = half(from + 208);
    for (int run = 0; run < 8; ++run) {
      const uint8_t *low = from + run / 4 * 64 + run % 2 * 32, *high = from + 128 + run / 4 * 32;
      for (int i = 0; i < 32; ++i) {
        const int q = (low[i] >> (run % 4 / 2 * 4) & 15) | (high[i] >> (run % 4 * 2) & 3) << 4;
        const auto scale = std::bit_cast<int8_t>(from[192 + run * 2 + i / 16]);
        *to++ = d * static_cast<float>(scale) * static_cast<float>(q - 32);
      }
    }
  }
}

void store_half(float value, uint8_t* to) {
  const uint16_t bits = c10::detail::fp16_ieee_from_fp32_value(value);
  std::memcpy(to, &bits, sizeof bits);
}

void to_q8_0(const float* from, int64_t blocks, uint8_t* to) {
  for (int64_t b = 0; b < blocks; ++b, from += 32, to += 34) {
    float largest = 0;
    for (int i = 0; i < 32; ++i) largest = std::max(largest, std::abs(from[i]));
    const float d = largest / 127.0F;
    // The inverse of what is all but zero is none; such a block is zero.
    const float inverse = d > 0 && std::isfinite(1.0F / d) ? 1.0F / d : 0.0F;
    store_half(d, to);
    for (int i = 0; i < 32; ++i)
      to[2 + i] = std::bit_cast<uint8_t>(static_cast<int8_t>(std::round(from[i] * inverse)));
  }
}

constexpr std::array<GgmlType, 11> kTypes = {{{0, "F32", 1, 4, from_f32},
                                              {1, "F16", 1, 2, from_f16},
                                              {8, "Q8_0", 32, 34, from_q8_0},
                                              {2, "Q4_0", 32, 18, from_q4_0},
                                              {3, "Q4_1", 32, 20, from_q4_1},
                                              {6, "Q5_0", 32, 22, from_q5_0},
                                              {7, "Q5_1", 32, 24, from_q5_1},
                                              {12, "Q4_K", kSuper, 144, from_q45_k<false>},
                                              {13, "Q5_K", kSuper, 176, from_q45_k<true>},
                                              {14, "Q6_K", kSuper, 210, from_q6_k},
                                              {30, "BF16", 1, 2, from_bf16}}};

struct Unread {
  uint32_t id;
  const char* name;
};
constexpr Unread kUnread[] = {{9, "Q8_1"},    {10, "Q2_K"},    {11, "Q3_K"},  {15, "Q8_K"},   {16, "IQ2_XXS"},
                              {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"},
                              {22, "IQ2_S"},  {23, "IQ4_XS"},  {24, "I8"},    {25, "I16"},    {26, "I32"},
                              {27, "I64"},    {28, "F64"},     {29, "IQ1_M"}, {34, "TQ1_0"},  {35, "TQ2_0"},
                              {39, "MXFP4"},  {40, "NVFP4"}};

}  // namespace

std::string ggml_encode(const GgmlType& type, const float* values, int64_t n) {
  std::string bytes(static_cast<size_t>(n / type.block * type.bytes), '\0');
  auto* to = reinterpret_cast<uint8_t*>(bytes.data());
  if (type.id == ggml_f32().id) {
    std::memcpy(to, values, bytes.size());
  } else if (type.id == ggml_f16().id) {
    for (int64_t i = 0; i < n; ++i) store_half(values[i], to + 2 * i);
  } else {
    check<ConfigError>(type.id == ggml_q8_0().id, "values are not written as ", type.name);
    to_q8_0(values, n / 32, to);
  }
  return bytes;
}

const GgmlType* ggml_type(uint32_t id) {
  for (const GgmlType& type : kTypes)
    if (type.id == id) return &type;
  return nullptr;
}

const GgmlType& ggml_f32() { return kTypes[0]; }
const GgmlType& ggml_f16() { return kTypes[1]; }
const GgmlType& ggml_q8_0() { return kTypes[2]; }

std::string ggml_type_name(uint32_t id) {
  if (const GgmlType* type = ggml_type(id)) return type->name;
  for (const Unread& type : kUnread)
    if (type.id == id) return type.name;
  return text(id);
}

std::string ggml_types_read() {
  std::vector<std::string> names;
  for (const GgmlType& type : kTypes) names.emplace_back(type.name);
  return join(names);
}

}  // namespace longreach
