// Register-blocked fp32 matrix product of small tiles, for every Highway target: the inner kernel of the CPU
// operators.
//
//   C[m, n] (+)= A[m, k] B[k, n]
//
// A block of rows x vectors of C stays in registers while k runs: 6 x 4 vectors with the 32 registers of
// AVX-512, 6 x 2 with 16. B is read by whole vectors, A element by element with any strides, so that A and
// its transpose cost the same. Operands should lie in the first cache levels: there is no cache blocking
// here, callers choose their tiles. Include after hwy/highway.h in a file that foreach_target compiles once
// per target.
#if defined(LONGREACH_LAYERS_OPS_SIMD_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGREACH_LAYERS_OPS_SIMD_GEMM_INL_H_
#undef LONGREACH_LAYERS_OPS_SIMD_GEMM_INL_H_
#else
#define LONGREACH_LAYERS_OPS_SIMD_GEMM_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace longreach::simd::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
inline constexpr int64_t kLanes = HWY_MAX_BYTES / sizeof(float);
// Vectors of C side by side in registers.
inline constexpr int kMaxVectors = HWY_TARGET <= HWY_AVX3 ? 4 : 2;

// A(i, p) = data[i * row + p * column], in elements.
struct Operand {
  const float* data;
  int64_t row, column;
};

// Rows of C in registers: as many as leave room for one row of B and one element of A.
constexpr int block_rows(int vectors) {
  const int by_vectors[] = {0, 8, kMaxVectors == 4 ? 8 : 6, 8, 6};
  return by_vectors[vectors];
}

template <int kRows, int kVectors>
HWY_INLINE void gemm_block(int64_t k, const float* HWY_RESTRICT a, int64_t a_row, int64_t a_column,
                           const float* HWY_RESTRICT b, int64_t ldb, float* HWY_RESTRICT c, int64_t ldc,
                           bool accumulate) {
  const FloatTag d;
  hn::Vec<FloatTag> sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j)
      sum[i][j] = accumulate ? hn::LoadU(d, c + i * ldc + j * kLanes) : hn::Zero(d);
  }
  for (int64_t p = 0; p < k; ++p) {
    hn::Vec<FloatTag> row[kVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) row[j] = hn::LoadU(d, b + j * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const auto element = hn::Set(d, a[i * a_row]);
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) sum[i][j] = hn::MulAdd(element, row[j], sum[i][j]);
    }
    a += a_column;
    b += ldb;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) hn::StoreU(sum[i][j], d, c + i * ldc + j * kLanes);
  }
}

// All rows of a strip of C that is kVectors wide.
template <int kVectors>
HWY_NOINLINE void gemm_strip(int64_t m, int64_t k, Operand a, const float* b, int64_t ldb, float* c,
                             int64_t ldc, bool accumulate) {
  constexpr int kBlock = block_rows(kVectors);
  int64_t i = 0;
  for (; i + kBlock <= m; i += kBlock)
    gemm_block<kBlock, kVectors>(k, a.data + i * a.row, a.row, a.column, b, ldb, c + i * ldc, ldc,
                                 accumulate);
  if (i + 4 <= m) {
    gemm_block<4, kVectors>(k, a.data + i * a.row, a.row, a.column, b, ldb, c + i * ldc, ldc, accumulate);
    i += 4;
  }
  if (i + 2 <= m) {
    gemm_block<2, kVectors>(k, a.data + i * a.row, a.row, a.column, b, ldb, c + i * ldc, ldc, accumulate);
    i += 2;
  }
  for (; i < m; ++i)
    gemm_block<1, kVectors>(k, a.data + i * a.row, a.row, a.column, b, ldb, c + i * ldc, ldc, accumulate);
}

// C[m, n] (+)= A[m, k] B[k, n]; n is a multiple of kLanes; m, k any size, 0 included; C must overlap neither
// A nor B. Sums run over p = 0..k-1 in order for every element, whatever the blocks.
HWY_INLINE void gemm(int64_t m, int64_t n, int64_t k, Operand a, const float* b, int64_t ldb, float* c,
                     int64_t ldc, bool accumulate) {
  int64_t vectors = n / kLanes;
  for (; vectors >= kMaxVectors; vectors -= kMaxVectors, b += kMaxVectors * kLanes, c += kMaxVectors * kLanes)
    gemm_strip<kMaxVectors>(m, k, a, b, ldb, c, ldc, accumulate);
  if constexpr (kMaxVectors == 4) {
    if (vectors == 3) gemm_strip<3>(m, k, a, b, ldb, c, ldc, accumulate);
    if (vectors == 2) gemm_strip<2>(m, k, a, b, ldb, c, ldc, accumulate);
  }
  if (vectors == 1) gemm_strip<1>(m, k, a, b, ldb, c, ldc, accumulate);
}

}  // namespace longreach::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // LONGREACH_LAYERS_OPS_SIMD_GEMM_INL_H_
