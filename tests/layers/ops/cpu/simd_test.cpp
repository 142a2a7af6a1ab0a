// The micro-kernels against float64, products by Eigen, on every Highway target that this CPU has.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "layers/ops/cpu/amx.h"
#include "layers/ops/cpu/bf16_dot.h"
#include "layers/ops/cpu/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/layers/ops/cpu/simd_test.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "layers/ops/cpu/gemm-inl.h"
#include "layers/ops/cpu/pack-inl.h"
#include "layers/ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::simd::HWY_NAMESPACE {

int64_t lanes() { return kLanes; }

void run_gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t row, int64_t column, const float* b,
              int64_t ldb, float* c, int64_t ldc, bool accumulate) {
  gemm(m, n, k, {a, row, column}, b, ldb, c, ldc, accumulate);
}

// Applies 2^x (base 2) or e^x to n values, n a multiple of the vector width.
void run_exponential(bool base2, const float* x, float* y, int64_t n) {
  const FloatTag d;
  for (int64_t i = 0; i < n; i += kLanes) {
    const auto v = hn::LoadU(d, x + i);
    hn::StoreU(base2 ? exp2(d, v) : exp(d, v), d, y + i);
  }
}

void run_transpose(const float* from, int64_t from_row, int64_t rows, int64_t columns, float* to,
                   int64_t to_row) {
  transpose(from, from_row, rows, columns, to, to_row);
}

void run_to_float(const uint16_t* from, int64_t n, float* to) { row_to_float(from, n, to); }
void run_from_float(const float* from, int64_t n, uint16_t* to) { row_from_float(from, n, to); }
void run_pad(const uint16_t* from, float* to) { pad_tile(from, 5, 3, 4, to, 32, 4, 32); }

}  // namespace longreach::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "tests/layers/ops/cpu/cpu_target.h"  // brings hwy/highway.h, which hwy/foreach_target.h precedes
#include "tests/support/oracle.h"

namespace longreach::simd {
namespace {
HWY_EXPORT(lanes);
HWY_EXPORT(run_gemm);
HWY_EXPORT(run_exponential);
HWY_EXPORT(run_transpose);
HWY_EXPORT(run_to_float);
HWY_EXPORT(run_from_float);
HWY_EXPORT(run_pad);

// Each test runs once per target of this CPU.
using Simd = test::CpuTarget;
using test::Matrix;
using test::matrix;

std::vector<float> normal(int64_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> draw;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = draw(generator);
  return values;
}

// found = a b + c, up to the roundings of sums in float32.
void expect_product(const Matrix& a, const Matrix& b, const Matrix& c, const Matrix& found) {
  const Matrix off = (found - a * b - c).cwiseAbs(), limit = test::product_limit(a, b, c);
  ASSERT_TRUE((off.array() <= limit.array()).all())  // no NaN is
      << a.rows() << " x " << b.cols() << " x " << a.cols() << ":\n"
      << off;
}

TEST_P(Simd, GemmIsTheProduct) {
  const int64_t width = HWY_DYNAMIC_DISPATCH(lanes)();
  for (const int64_t m : {0, 1, 2, 3, 5, 6, 7, 8, 11, 16, 64})
    for (const int64_t vectors : {1, 2, 3, 4, 5, 8})
      for (const int64_t k : {0, 1, 7, 64})
        for (const bool transposed : {false, true})
          for (const bool accumulate : {false, true}) {
            const int64_t n = vectors * width, ldb = n + 3, ldc = n + 1;
            const auto a = normal(m * k + 1, 1), b = normal(k * ldb + 1, 2), before = normal(m * ldc + 1, 3);
            auto c = before;
            if (!accumulate) std::fill(c.begin(), c.end(), std::nanf(""));
            const int64_t row = transposed ? 1 : k, column = transposed ? m : 1;
            HWY_DYNAMIC_DISPATCH(run_gemm)
            (m, n, k, a.data(), row, column, b.data(), ldb, c.data(), ldc, accumulate);
            expect_product(matrix(a.data(), m, k, row, column), matrix(b.data(), k, n, ldb),
                           accumulate ? matrix(before.data(), m, n, ldc) : Matrix(Matrix::Zero(m, n)),
                           matrix(c.data(), m, n, ldc));
          }
}

TEST_P(Simd, ExponentialsAreAccurate) {
  for (const bool base2 : {true, false}) {
    const double low = base2 ? -126 : -87.3, high = base2 ? 127.4 : 88.3;
    std::vector<float> x(1 << 16), y(x.size());
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(low + (high - low) * i / (x.size() - 1));
    HWY_DYNAMIC_DISPATCH(run_exponential)(base2, x.data(), y.data(), static_cast<int64_t>(x.size()));
    for (size_t i = 0; i < x.size(); ++i) {
      const double want = base2 ? std::exp2(double{x[i]}) : std::exp(double{x[i]});
      ASSERT_NEAR(y[i] / want, 1.0, 2.5e-7) << x[i] << " base2 " << base2;
    }
  }
}

TEST_P(Simd, ExponentialsOfSpecialValues) {
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> x(16, 0.0f), y(16);
  x[0] = -inf, x[1] = -1e30f, x[2] = std::nanf(""), x[3] = inf, x[4] = 500.0f, x[5] = -200.0f;
  for (const bool base2 : {true, false}) {
    HWY_DYNAMIC_DISPATCH(run_exponential)(base2, x.data(), y.data(), 16);
    EXPECT_EQ(y[0], 0.0f);
    EXPECT_EQ(y[1], 0.0f);
    EXPECT_TRUE(std::isnan(y[2])) << y[2];
    EXPECT_EQ(y[3], inf);
    EXPECT_EQ(y[4], inf);
    EXPECT_EQ(y[5], 0.0f);
    EXPECT_EQ(y[6], 1.0f);
  }
}

TEST_P(Simd, TransposeMovesEveryElement) {
  for (const int64_t rows : {0, 1, 3, 4, 7, 64})
    for (const int64_t columns : {0, 1, 3, 4, 9, 64}) {
      const auto from = normal((rows + 1) * (columns + 2), 4);
      std::vector<float> to(static_cast<size_t>((columns + 1) * (rows + 5)), std::nanf(""));
      HWY_DYNAMIC_DISPATCH(run_transpose)(from.data(), columns + 2, rows, columns, to.data(), rows + 5);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c) ASSERT_EQ(to[c * (rows + 5) + r], from[r * (columns + 2) + c]);
    }
}

TEST_P(Simd, Bf16RoundsToNearestEven) {
  // The last bit kept is bit 16: 1 + 2^-8 is a tie that goes down to even, 1 + 3 * 2^-8 one that goes up.
  std::vector<float> x = normal(37, 5);
  x[0] = 1.0f + 0x1p-8f, x[1] = 1.0f + 3 * 0x1p-8f, x[2] = std::nanf(""),
  x[3] = -std::numeric_limits<float>::infinity();
  x[4] = std::numeric_limits<float>::max(), x[36] = std::bit_cast<float>(0x7f800001u);
  std::vector<uint16_t> bits(x.size());
  HWY_DYNAMIC_DISPATCH(run_from_float)(x.data(), static_cast<int64_t>(x.size()), bits.data());
  EXPECT_EQ(float_from_bf16(bits[0]), 1.0f);
  EXPECT_EQ(float_from_bf16(bits[1]), 1.0f + 0x1p-6f);
  EXPECT_TRUE(std::isnan(float_from_bf16(bits[2])));
  EXPECT_EQ(float_from_bf16(bits[3]), -std::numeric_limits<float>::infinity());
  EXPECT_EQ(float_from_bf16(bits[4]), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(float_from_bf16(bits[36])));
  for (size_t i = 5; i < 36; ++i) EXPECT_EQ(bits[i], bf16_from_float(x[i]));
  std::vector<float> back(x.size());
  HWY_DYNAMIC_DISPATCH(run_to_float)(bits.data(), static_cast<int64_t>(x.size()), back.data());
  for (size_t i = 5; i < 36; ++i) EXPECT_NEAR(back[i], x[i], std::abs(x[i]) * 0x1p-8f);
}

TEST_P(Simd, PaddedTilesAreZeroOutside) {
  std::vector<uint16_t> from(15);
  for (size_t i = 0; i < from.size(); ++i) from[i] = bf16_from_float(static_cast<float>(i + 1));
  std::vector<float> to(4 * 32, std::nanf(""));
  HWY_DYNAMIC_DISPATCH(run_pad)(from.data(), to.data());
  for (int r = 0; r < 4; ++r)
    for (int c = 0; c < 32; ++c)
      EXPECT_EQ(to[r * 32 + c], r < 3 && c < 4 ? static_cast<float>(r * 5 + c + 1) : 0.0f);
}

TEST_P(Simd, PairsOfRowsAndColumns) {
  for (const int64_t rows : {1, 2, 5, 16})
    for (const int64_t columns : {1, 7, 8, 19}) {
      std::vector<uint16_t> from(static_cast<size_t>(rows * (columns + 1)));
      for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<uint16_t>(i + 1);
      const auto at = [&](int64_t r, int64_t c) {
        return r < rows && c < columns ? from[static_cast<size_t>(r * (columns + 1) + c)] : uint16_t{0};
      };
      std::vector<uint16_t> to(16 * 2 * 40, 0xffff);
      pair_rows(from.data(), columns + 1, rows, columns, to.data(), 32, 16, 32);
      for (int64_t r = 0; r < 16; ++r)
        for (int64_t c = 0; c < 32; ++c)
          ASSERT_EQ(to[static_cast<size_t>(2 * (r / 2 * 32 + c) + r % 2)], at(r, c));
      std::fill(to.begin(), to.end(), uint16_t{0xffff});
      pair_columns(from.data(), columns + 1, rows, columns, to.data(), 32, 16);
      for (int64_t r = 0; r < 16; ++r)
        for (int64_t c = 0; c < (columns + 1) / 2 * 2; ++c)
          ASSERT_EQ(to[static_cast<size_t>(2 * (c / 2 * 32 + r) + c % 2)], at(r, c))
              << rows << ' ' << columns;
    }
}

INSTANTIATE_TEST_SUITE_P(Targets, Simd, test::cpu_targets(), test::cpu_target_name);

std::vector<float> rounded(std::vector<float> values) {
  for (float& value : values) value = float_from_bf16(bf16_from_float(value));
  return values;
}

// product(m, n, k, a rows, b pairs, c, accumulate) against Eigen's; products of bfloat16 numbers are exact in
// float32.
template <class Product>
void expect_bf16_product(const Product& product) {
  for (const int64_t m : {1, 4, 6, 9, 16, 40, 64})
    for (const int64_t n : {16, 32, 48, 64, 80})
      for (const int64_t k : {2, 32, 48, 64, 96})
        for (const bool accumulate : {false, true}) {
          const auto a = normal(m * k, 6), b = normal(k * n, 7), before = normal(m * n, 8);
          std::vector<uint16_t> ah(a.size()), bh(b.size());
          for (size_t i = 0; i < a.size(); ++i) ah[i] = bf16_from_float(a[i]);
          pair_rows_bf16_dot(b.data(), n, k, n, bh.data(), n);
          const auto a_seen = rounded(a), b_seen = rounded(b);
          auto c = before;
          if (!accumulate) std::fill(c.begin(), c.end(), std::nanf(""));
          product(m, n, k, ah.data(), bh.data(), c.data(), accumulate);
          expect_product(matrix(a_seen.data(), m, k, k), matrix(b_seen.data(), k, n, n),
                         accumulate ? matrix(before.data(), m, n, n) : Matrix(Matrix::Zero(m, n)),
                         matrix(c.data(), m, n, n));
        }
}

TEST(Bf16Dot, IsTheProduct) {
  if (!has_bf16_dot()) GTEST_SKIP() << "this CPU has no AVX-512-BF16";
  expect_bf16_product(
      [](int64_t m, int64_t n, int64_t k, const uint16_t* a, const uint16_t* b, float* c, bool add) {
        gemm_bf16_dot(m, n, k, {a, k, 2}, b, n, c, n, add);
      });
}

TEST(Amx, IsTheProduct) {
  if (!has_amx()) GTEST_SKIP() << "this CPU has no AMX, or the system does not lend it";
  const TileRegisters session;
  expect_bf16_product([](int64_t m, int64_t n, int64_t k, const uint16_t* a, const uint16_t* b, float* c,
                         bool add) { gemm_bf16_amx(m, n, k, a, k, b, n, c, n, add); });
}

TEST(Bf16Dot, RoundsRows) {
  if (!has_bf16_dot()) GTEST_SKIP() << "this CPU has no AVX-512-BF16";
  const auto x = normal(3 * 70, 9);
  std::vector<uint16_t> y(3 * 64);
  round_rows_bf16_dot(x.data(), 70, 3, 64, y.data(), 64);
  for (int r = 0; r < 3; ++r)
    for (int c = 0; c < 64; ++c) ASSERT_EQ(y[r * 64 + c], bf16_from_float(x[r * 70 + c]));
}

TEST(Scratch, IsAlignedAndGrows) {
  Scratch<float> scratch(3);
  scratch.get(3)[2] = 5.0f;
  EXPECT_EQ(reinterpret_cast<uintptr_t>(scratch.data()) % 64, 0u);
  EXPECT_EQ(scratch.get(2)[2], 5.0f);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(scratch.get(1000)) % 64, 0u);
}

}  // namespace
}  // namespace longreach::simd
#endif
