// The softmax of the CPU's attention kernels against Eigen in float64, on every instruction set and with
// every product of bfloat16 tiles: plain pointers in and out.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "layers/ops/cpu/bfloat16.h"
#include "layers/ops/interval_attention/kernels.h"
#include "tests/layers/ops/cpu/cpu_target.h"
#include "tests/support/oracle.h"

namespace longreach {
namespace {

using namespace test;
using softmax_tile::Bf16Product;

constexpr double kLog2e = 1.4426950408889634, kLn2 = 0.6931471805599453;
constexpr double kExponential = 2e-7;     // relative error of vector_math-inl.h's exponentials
constexpr double kBf16Rounding = 0x1p-8;  // relative error of a rounding to bfloat16

// One sequence of `heads` heads.
struct Problem {
  int64_t queries, keys, qk_size, v_size, window = 0, sinks = 0;
  bool causal = true;
  float spread = 1;  // of the queries: how far scores lie apart
  int64_t heads = 2;
};

// Rows of [tokens, heads, size] in a type of the kernels.
struct Rows {
  int64_t tokens, heads, size;
  bool narrow;
  std::vector<float> values;  // what the kernel reads, in float32
  std::vector<uint16_t> bits;

  Rows(int64_t tokens, int64_t heads, int64_t size, bool narrow, float spread, uint32_t seed)
      : tokens(tokens), heads(heads), size(size), narrow(narrow) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> draw(0, spread);
    for (int64_t i = 0; i < tokens * heads * size; ++i) values.push_back(draw(generator));
    if (!narrow) return;
    for (float& value : values) {
      bits.push_back(simd::bf16_from_float(value));
      value = simd::float_from_bf16(bits.back());
    }
  }
  Strided strided() {
    return {narrow ? static_cast<void*>(bits.data()) : values.data(), 0, heads * size, size};
  }
  Matrix head(int64_t h) const { return matrix(values.data() + h * size, tokens, size, heads * size); }
  void widen() {
    if (narrow) std::transform(bits.begin(), bits.end(), values.begin(), simd::float_from_bf16);
  }
};

Seen seen_pairs(const Problem& p) {
  Seen seen(p.queries, p.keys);
  for (int64_t i = 0; i < p.queries; ++i)
    for (int64_t j = 0; j < p.keys; ++j) {
      const int64_t place = i + p.keys - p.queries;
      const bool inside = p.window == 0 || j > place - p.window || j < p.sinks;
      seen(i, j) = (!p.causal || j <= place) && inside;
    }
  return seen;
}

// How far weights before their division may be from the exact ones, relative to them. A score is a sum in
// float32 times a factor of three roundings, rounded; its exponential is taken of a rounded difference to a
// maximum that lies at most 8 above or below the row's own, and taken again, of differences no larger,
// whenever a tile of 64 keys moves the maximum.
Matrix weight_limit(const Problem& p, const Matrix& q, const Matrix& k, const Matrix& scores, double scale) {
  const auto tiles = static_cast<double>((p.keys + 63) / 64 + 1);
  const Matrix sums = kLog2e * scale * roundings(p.qk_size + 5) * (q.cwiseAbs() * k.cwiseAbs().transpose());
  const double apart = kLog2e * (scores.maxCoeff() - scores.minCoeff()) + 8;
  const double each = kLn2 * roundings(1) * apart + kExponential + roundings(2);
  return (kLn2 * sums).array() + tiles * each + roundings(p.keys + 4);
}

void expect_softmax(const Problem& p, bool narrow, Bf16Product product) {
  Rows q(p.queries, p.heads, p.qk_size, narrow, p.spread, 1), k(p.keys, p.heads, p.qk_size, narrow, 1, 2),
      v(p.keys, p.heads, p.v_size, narrow, 1, 3), o(p.queries, p.heads, p.v_size, narrow, 1, 4);
  std::vector<float> lse(static_cast<size_t>(p.heads * p.queries), std::nanf(""));
  const float scale = 1.0f / std::sqrt(static_cast<float>(p.qk_size));
  interval::forward_cpu({.dtype = narrow ? DType::kBFloat16 : DType::kFloat32,
                         .bf16_product = product,
                         .batches = 1,
                         .queries = p.queries,
                         .keys = p.keys,
                         .heads = p.heads,
                         .key_heads = p.heads,
                         .value_heads = p.heads,
                         .qk_size = p.qk_size,
                         .v_size = p.v_size,
                         .scale = scale,
                         .q = q.strided(),
                         .k = k.strided(),
                         .v = v.strided(),
                         .o = o.strided(),
                         .lse = lse.data(),
                         .causal = p.causal,
                         .window = p.window,
                         .sinks = p.sinks,
                         .documents = 1});
  o.widen();
  const Seen seen = seen_pairs(p);
  // The kernel rounds weights to bfloat16 where it multiplies pairs.
  const double rounded = narrow && product != Bf16Product::kFloat ? kBf16Rounding : 0.0;
  for (int64_t h = 0; h < p.heads; ++h) {
    const Matrix queries = q.head(h), keys = k.head(h), values = v.head(h);
    const Matrix scores = scale * queries * keys.transpose();
    const Softmax exact = softmax_rows(scores, seen);
    const Matrix limit = weight_limit(p, queries, keys, scores, scale), output = exact.weights * values;
    ASSERT_LT(limit.maxCoeff(), 0.01);
    const Matrix spread = exact.weights.cwiseProduct(limit);
    const Eigen::VectorXd whole = spread.rowwise().sum() / (1 - limit.maxCoeff());
    const Matrix off = (spread + rounded * exact.weights) * values.cwiseAbs() / (1 - limit.maxCoeff()) +
                       whole.asDiagonal() * output.cwiseAbs();
    const Matrix bound = off + (narrow ? kBf16Rounding : 0.0) * (output.cwiseAbs() + off);
    const Matrix found = o.head(h);
    for (int64_t i = 0; i < p.queries; ++i) {
      const double got = lse[static_cast<size_t>(h * p.queries + i)];
      if (!seen.row(i).any()) {
        ASSERT_EQ(got, exact.lse[i]);
        ASSERT_TRUE((found.row(i).array() == 0.0).all());
        continue;
      }
      // maximum + log2(sum), the sum at most 2^8 a key, times log 2.
      const double last =
          roundings(4) * std::abs(exact.lse[i]) + roundings(4) * (8 + std::log2(static_cast<double>(p.keys)));
      ASSERT_NEAR(got, exact.lse[i], whole[i] + last) << "query " << i;
      for (int64_t e = 0; e < p.v_size; ++e)
        ASSERT_NEAR(found(i, e), output(i, e), bound(i, e)) << "query " << i << " feature " << e;
    }
  }
}

class Softmax : public CpuTarget {
 protected:
  void expect_everywhere(const Problem& problem) {
    expect_softmax(problem, false, Bf16Product::kFloat);
    for_products([&](bool) { expect_softmax(problem, true, softmax_tile::bf16_product()); });
  }
};
INSTANTIATE_TEST_SUITE_P(Targets, Softmax, cpu_targets(), cpu_target_name);

TEST_P(Softmax, OfWholeRowsAndOfPartsOfTiles) {
  for (const int64_t keys : {1, 63, 64, 65, 200})
    for (const bool causal : {true, false})
      expect_everywhere({.queries = std::min<int64_t>(keys, 70),
                         .keys = keys,
                         .qk_size = 24,
                         .v_size = 33,
                         .causal = causal});
}

// Later tiles hold larger scores than the first: the running maximum moves, and what was summed is brought to
// it.
TEST_P(Softmax, OfScoresThatLieFarApart) {
  expect_everywhere({.queries = 40, .keys = 300, .qk_size = 16, .v_size = 16, .causal = false, .spread = 12});
}

TEST_P(Softmax, OfAWindowBehindSinks) {
  expect_everywhere({.queries = 150, .keys = 150, .qk_size = 8, .v_size = 20, .window = 37, .sinks = 3});
}

TEST_P(Softmax, OfQueriesBeforeTheFirstKey) {
  expect_everywhere({.queries = 20, .keys = 5, .qk_size = 8, .v_size = 4});
}

}  // namespace
}  // namespace longreach
