// The parts of bf16_dot.h that need AVX-512-BF16. No static initialisers and no inline library code here:
// this file is compiled for instructions that the CPU may lack.
#include <immintrin.h>

#include "layers/ops/cpu/bf16_dot.h"

namespace longreach::simd {
namespace {

template <int kRows, int kVectors>
[[gnu::always_inline]] inline void dot_block(int64_t pairs, const uint16_t* a, int64_t a_row, int64_t a_pair,
                                             const uint16_t* b, int64_t ldb, float* c, int64_t ldc,
                                             bool accumulate) {
  __m512 sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j)
      sum[i][j] = accumulate ? _mm512_loadu_ps(c + i * ldc + 16 * j) : _mm512_setzero_ps();
  }
  for (int64_t p = 0; p < pairs; ++p) {
    __m512bh row[kVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) row[j] = (__m512bh)_mm512_loadu_si512(b + 32 * j);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      int element;
      __builtin_memcpy(&element, a + i * a_row, sizeof element);
      const auto pair = (__m512bh)_mm512_set1_epi32(element);
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], pair, row[j]);
    }
    a += a_pair;
    b += 2 * ldb;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) _mm512_storeu_ps(c + i * ldc + 16 * j, sum[i][j]);
  }
}

template <int kBlock, int kVectors>
void dot_strip(int64_t m, int64_t pairs, Bf16Operand a, const uint16_t* b, int64_t ldb, float* c, int64_t ldc,
               bool accumulate) {
  int64_t i = 0;
  for (; i + kBlock <= m; i += kBlock)
    dot_block<kBlock, kVectors>(pairs, a.data + i * a.row, a.row, a.pair, b, ldb, c + i * ldc, ldc,
                                accumulate);
  if (i + 4 <= m) {
    dot_block<4, kVectors>(pairs, a.data + i * a.row, a.row, a.pair, b, ldb, c + i * ldc, ldc, accumulate);
    i += 4;
  }
  for (; i < m; ++i)
    dot_block<1, kVectors>(pairs, a.data + i * a.row, a.row, a.pair, b, ldb, c + i * ldc, ldc, accumulate);
}

}  // namespace

void gemm_bf16_dot(int64_t m, int64_t n, int64_t k, Bf16Operand a, const uint16_t* b, int64_t ldb, float* c,
                   int64_t ldc, bool accumulate) {
  int64_t left = n / 16;
  for (; left >= 4; left -= 4, b += 128, c += 64) dot_strip<6, 4>(m, k / 2, a, b, ldb, c, ldc, accumulate);
  if (left == 3) dot_strip<8, 3>(m, k / 2, a, b, ldb, c, ldc, accumulate);
  if (left == 2) dot_strip<8, 2>(m, k / 2, a, b, ldb, c, ldc, accumulate);
  if (left == 1) dot_strip<8, 1>(m, k / 2, a, b, ldb, c, ldc, accumulate);
}

void pair_rows_bf16_dot(const float* from, int64_t from_row, int64_t rows, int64_t columns, uint16_t* to,
                        int64_t to_row) {
  // Lane 2j takes element j of the first row (low half of the converted pair), lane 2j+1 that of the second.
  alignas(64) uint16_t order[32];
  for (int j = 0; j < 16; ++j) {
    order[2 * j] = static_cast<uint16_t>(j);
    order[2 * j + 1] = static_cast<uint16_t>(16 + j);
  }
  const __m512i interleave = _mm512_load_si512(order);
  for (int64_t r = 0; r < rows; r += 2) {
    const float *first = from + r * from_row, *second = first + from_row;
    uint16_t* out = to + r * to_row;
    for (int64_t c = 0; c < columns; c += 16) {
      const auto both = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(second + c), _mm512_loadu_ps(first + c));
      _mm512_storeu_si512(out + 2 * c, _mm512_permutexvar_epi16(interleave, both));
    }
  }
}

void round_rows_bf16_dot(const float* from, int64_t from_row, int64_t rows, int64_t columns, uint16_t* to,
                         int64_t to_row) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* in = from + r * from_row;
    uint16_t* out = to + r * to_row;
    for (int64_t c = 0; c < columns; c += 32)
      _mm512_storeu_si512(
          out + c, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(in + c + 16), _mm512_loadu_ps(in + c)));
  }
}

}  // namespace longreach::simd
