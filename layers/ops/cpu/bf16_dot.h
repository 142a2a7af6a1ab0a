// bf16 matrix product of small tiles with the dot-product instruction of AVX-512-BF16 (vdpbf16ps), fp32 sums.
// Highway 1.0.3 does not offer it, so that it has a file of its own, compiled for that instruction set and
// entered behind a check of the CPU. Products of two bf16 are exact; each instruction adds a pair, flushing
// denormals.
//
// Layouts, elements being bf16 bits:
//   A  pairs along k lie side by side: pair p of row i is at data + i * row + p * pair (strides in elements)
//   B  [ceil(k/2)][n][2]: elements 2p and 2p+1 of a column side by side ("VNNI"); ldb counts pairs
// An odd k is padded by the caller with zeros in both.
#pragma once
#include <cstdint>

namespace longreach::simd {

// Does this CPU have it?
bool has_bf16_dot();

// Is it faster here than fp32 products of converted tiles? On AMD Zen 4 it does twice the work of an fp32 FMA
// in the same time; on Intel's cores (measured on Sapphire Rapids) half of it: 70 against 128 GFLOP/s.
bool bf16_dot_is_fast();

struct Bf16Operand {
  const uint16_t* data;
  int64_t row, pair;
};

// C[m, n] (+)= A[m, k] B[k, n], k even, n a multiple of 16, C fp32 row-major. Only where has_bf16_dot().
void gemm_bf16_dot(int64_t m, int64_t n, int64_t k, Bf16Operand a, const uint16_t* b, int64_t ldb, float* c,
                   int64_t ldc, bool accumulate);

// to[p, j] = (from[2p, j], from[2p+1, j]) as bf16 pairs: fp32 rows become a B operand. rows even, columns a
// multiple of 16; to_row counts pairs. Only where has_bf16_dot().
void pair_rows_bf16_dot(const float* from, int64_t from_row, int64_t rows, int64_t columns, uint16_t* to,
                        int64_t to_row);

// fp32 rows to bf16 rows, columns a multiple of 32. Only where has_bf16_dot().
void round_rows_bf16_dot(const float* from, int64_t from_row, int64_t rows, int64_t columns, uint16_t* to,
                         int64_t to_row);

// to[p, j] = (from[2p, j], from[2p+1, j]): rows of bf16 become a B operand, zero up to padded_rows (even) and
// padded_columns. Any CPU.
void pair_rows(const uint16_t* from, int64_t from_row, int64_t rows, int64_t columns, uint16_t* to,
               int64_t to_row, int64_t padded_rows, int64_t padded_columns);

// to[p, i] = (from[i, 2p], from[i, 2p+1]): the transpose as a B operand, zero up to padded_rows and an even
// number of columns. Any CPU.
void pair_columns(const uint16_t* from, int64_t from_row, int64_t rows, int64_t columns, uint16_t* to,
                  int64_t to_row, int64_t padded_rows);

}  // namespace longreach::simd
