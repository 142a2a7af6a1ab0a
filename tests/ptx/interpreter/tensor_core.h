// Fragment layouts of mma.sync and ldmatrix as functions of lane and element, from the PTX ISA ("Matrix
// Fragments for mma.m16n8k16 with floating point type" and its neighbours). Tests check them against an
// independent source.
#pragma once
#include <cstdint>
#include <utility>

namespace longreach::ptx {

struct Place2 {
  unsigned row, column;
};

// A of m16n8kK, `wide` elements of 32 bits (K = 4, 8) or pairs of 16 bits (K = 8, 16); element e of lane l.
constexpr Place2 mma_a16(unsigned l, unsigned e) {
  return {l / 4 + (e / 2 % 2) * 8, l % 4 * 2 + e % 2 + e / 4 * 8};
}
constexpr Place2 mma_a32(unsigned l, unsigned e) { return {l / 4 + e % 2 * 8, l % 4 + e / 2 * 4}; }
// B is K x 8: row is k, column is n.
constexpr Place2 mma_b16(unsigned l, unsigned e) { return {l % 4 * 2 + e % 2 + e / 2 * 8, l / 4}; }
constexpr Place2 mma_b32(unsigned l, unsigned e) { return {l % 4 + e * 4, l / 4}; }
// C and D: 16 x 8.
constexpr Place2 mma_c(unsigned l, unsigned e) { return {l / 4 + e / 2 * 8, l % 4 * 2 + e % 2}; }
// wgmma's D (m64, any n), element e of thread t of the warpgroup.
constexpr Place2 wgmma_d(unsigned t, unsigned e) {
  return {t / 32 * 16 + t % 32 / 4 + e / 2 % 2 * 8, e / 4 * 8 + t % 4 * 2 + e % 2};
}
// ldmatrix: elements 2 l and 2 l + 1 (of 64, row major) of each 8x8 matrix go to lane l.
constexpr Place2 ldmatrix_element(unsigned l, unsigned e) { return {l / 4, l % 4 * 2 + e}; }

}  // namespace longreach::ptx
