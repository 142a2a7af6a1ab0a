// How tensor cores add products to fp32 sums, as has been measured (Fasi et al., PeerJ Computer Science
// 7:e330, 2021; Li et al., FTTN, arXiv 2403.00232; Khattak and Mikaitis, arXiv 2512.07004). The products of a
// block of elements, which are exact, and the sum so far are aligned to the largest exponent among them (of a
// product: the sum of its factors' exponents), cut off toward zero `Fraction` bits below it, added exactly,
// and the result is cut off toward zero to fp32. Here sums whose exponents are all below -100 are cut off as
// at -100; with infinities, NaN or exponents above 100 they are those of float64.
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace longreach::ptx {

// The A100 adds 16 bytes of a row's elements at once (8 of 16 bits, 4 of TF32) with one bit below fp32's
// last; the H100's wgmma 32 bytes with two. mma.sync is the A100's: an H100 loses less.
inline constexpr unsigned kAmpereBytes = 16, kHopperBytes = 32;
inline constexpr int kAmpereFraction = 24, kHopperFraction = 25;

inline constexpr int32_t kLowest = -100, kHighest = 100;

// Far outside of what a sum of two exponents can be: zeros never align, what is not finite always does.
inline int32_t exponent_of(float x) {
  constexpr int32_t kZero = -1000, kNotFinite = 4000;
  const auto biased = static_cast<int32_t>(std::bit_cast<uint32_t>(x) >> 23 & 255);
  return x == 0 ? kZero : biased == 255 ? kNotFinite : std::max(biased, 1) - 127;
}

// Rows of elements and of their exponents.
template <size_t Rows, size_t Columns>
struct Factor {
  alignas(64) float x[Rows][Columns];
  alignas(64) int32_t exponent[Rows][Columns];

  void find_exponents(size_t rows, size_t columns) {
    for (size_t r = 0; r < rows; ++r)
      for (size_t c = 0; c < columns; ++c) exponent[r][c] = exponent_of(x[r][c]);
  }
};

inline constexpr unsigned kSums = 8;  // that are made at once

inline float cut_to_float(double x) {
  return static_cast<float>(std::bit_cast<double>(std::bit_cast<uint64_t>(x) & ~uint64_t{0x1fffffff}));
}

// sums[c] += sum over k of a(row, first + k) b(first + k, column + c), one block.
template <unsigned Block, int Fraction, class A, class B>
void add_block(float* sums, const A& a, size_t row, const B& b, size_t column, unsigned first) {
  int32_t top[kSums];
  for (unsigned c = 0; c < kSums; ++c) top[c] = std::max(exponent_of(sums[c]), kLowest);
  for (unsigned k = first; k < first + Block; ++k)
    for (unsigned c = 0; c < kSums; ++c)
      top[c] = std::max(top[c], a.exponent[row][k] + b.exponent[k][column + c]);
  if (*std::max_element(top, top + kSums) > kHighest) {
    for (unsigned c = 0; c < kSums; ++c) {
      double sum = sums[c];
      for (unsigned k = first; k < first + Block; ++k) sum += double{a.x[row][k]} * b.x[k][column + c];
      sums[c] = static_cast<float>(sum);
    }
    return;
  }
  float scale[kSums];
  double total[kSums];
  for (unsigned c = 0; c < kSums; ++c) {
    scale[c] = std::bit_cast<float>(static_cast<uint32_t>(Fraction - top[c] + 127) << 23);
    total[c] = static_cast<int32_t>(sums[c] * scale[c]);
  }
  constexpr unsigned kTogether = std::min(Block, 8u);  // in 32 bits: each is below 2^(Fraction + 2)
  for (unsigned part = first; part < first + Block; part += kTogether) {
    int32_t added[kSums] = {};
    for (unsigned k = part; k < part + kTogether; ++k)
      for (unsigned c = 0; c < kSums; ++c)
        added[c] += static_cast<int32_t>(a.x[row][k] * b.x[k][column + c] * scale[c]);
    for (unsigned c = 0; c < kSums; ++c) total[c] += added[c];
  }
  for (unsigned c = 0; c < kSums; ++c) sums[c] = cut_to_float(total[c] / scale[c]);
}

// The same over Depth elements, block after block.
template <unsigned Depth, unsigned Block, int Fraction, class A, class B>
void add_products(float* sums, const A& a, size_t row, const B& b, size_t column) {
  for (unsigned k = 0; k < Depth; k += Block) add_block<Block, Fraction>(sums, a, row, b, column, k);
}

}  // namespace longreach::ptx
