// The product for few rows against float64 on every instruction set, beside what LibTorch's own product does
// in the same dtype.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>

#include "layers/basic/projection.h"
#include "layers/ops/matmul/matmul.h"
#include "tests/layers/ops/cpu/cpu_target.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;

class FewRows : public CpuTarget {};
INSTANTIATE_TEST_SUITE_P(Targets, FewRows, cpu_targets(), cpu_target_name);

// A sum of `in` products in float32, then the rounding to the dtype of the result.
double floor_of(int64_t in, at::ScalarType dtype) {
  return std::sqrt(static_cast<double>(in)) * std::exp2(-24) + (dtype == at::kBFloat16 ? std::exp2(-9) : 0.0);
}

TEST_P(FewRows, EqualFloat64) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t in : {1, 15, 16, 17, 63, 64, 65, 200, 576})
      for (const int64_t out : {1, 7, 300})
        for (int64_t rows = 1; rows <= 4; ++rows) {
          const at::Tensor x = normal({1, rows, in}, 1, dtype), weight = normal({out, in}, 2, dtype);
          ASSERT_TRUE(has_few_rows(x, weight));
          const at::Tensor exact = at::linear(x.to(at::kDouble), weight.to(at::kDouble));
          const double theirs = relative_error(at::linear(x, weight), exact);
          const at::Tensor y = linear_product(x, weight), wide = linear_product(x, weight, true);
          EXPECT_EQ(y.scalar_type(), dtype);
          EXPECT_EQ(wide.scalar_type(), at::kFloat);
          EXPECT_LE(relative_error(y, exact), 2 * theirs + floor_of(in, dtype))
              << dtype << " " << rows << " x " << in << " -> " << out;
          EXPECT_LE(relative_error(wide, exact), 4 * floor_of(in, at::kFloat))
              << dtype << " " << rows << " x " << in << " -> " << out;
        }
}

TEST_P(FewRows, NonFiniteValuesStayInTheirRowAndColumn) {
  at::Tensor x = normal({3, 37}, 1, at::kFloat), weight = normal({9, 37}, 2, at::kFloat);
  x[1][36] = std::numeric_limits<float>::quiet_NaN();
  weight[4][2] = std::numeric_limits<float>::infinity();
  const at::Tensor y = linear_product(x, weight);
  EXPECT_EQ(y.isfinite().sum().item<int64_t>(), 2 * 8);
  EXPECT_TRUE(y[1].isnan().all().item<bool>());
  EXPECT_TRUE(y.select(1, 4).isfinite().logical_not().all().item<bool>());
}

TEST_P(FewRows, SeveralMapsAreTheSameAsEachAlone) {
  const at::NoGradGuard no_grad;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t rows : {1, 3, 9}) {
      const at::Tensor x = normal({rows, 1, 100}, 1, dtype);
      const std::vector<Projection> plain{normal({300, 100}, 2, dtype), normal({7, 100}, 3, dtype),
                                          normal({4000, 100}, 4, dtype)};
      std::vector<Projection> biased = plain, adapted = plain;
      biased[1].bias = normal({7}, 5, dtype);
      adapted[2].adapter = LowRank{.a = normal({2, 100}, 6, dtype), .b = normal({4000, 2}, 7, dtype)};
      for (const auto& maps : {plain, biased, adapted}) {
        const std::vector<at::Tensor> results = linear_maps(x, maps);
        ASSERT_EQ(results.size(), maps.size());
        for (size_t i = 0; i < maps.size(); ++i) EXPECT_TRUE(results[i].equal(linear_map(x, maps[i]))) << i;
      }
    }
}

TEST(FewRowsLayout, StridedRowsAreReadAsTheyAre) {
  const at::Tensor x = normal({40, 2}, 1, at::kFloat).t(), weight = normal({5, 40}, 2, at::kFloat);
  EXPECT_TRUE(linear_product(x, weight).equal(linear_product(x.contiguous(), weight)));
}

TEST(FewRowsLayout, WhatTheKernelDoesNotTakeGoesElsewhere) {
  const at::Tensor weight = normal({8, 40}, 2, at::kFloat);
  EXPECT_FALSE(has_few_rows(normal({5, 40}, 1, at::kFloat), weight)) << "five rows";
  EXPECT_FALSE(has_few_rows(normal({0, 40}, 1, at::kFloat), weight)) << "none";
  EXPECT_FALSE(has_few_rows(normal({1, 40}, 1), normal({8, 40}, 2))) << "float64";
  EXPECT_FALSE(has_few_rows(normal({1, 40}, 1, at::kBFloat16), weight)) << "two dtypes";
  EXPECT_FALSE(has_few_rows(normal({1, 40}, 1, at::kFloat), normal({40, 8}, 2, at::kFloat).t())) << "columns";
}

// An output's bits are its own, wherever a piece of work ends and whether a tape records.
TEST(FewRowsLayout, BitsDoNotDependOnOtherOutputsOrTheTape) {
  const at::Tensor x = normal({1, 576}, 1, at::kFloat), weight = normal({700, 576}, 2, at::kFloat);
  const at::Tensor alone = linear_map(x, weight), taped = linear_map(x.clone().requires_grad_(), weight);
  EXPECT_TRUE(taped.requires_grad());
  EXPECT_TRUE(alone.equal(taped.detach()));
  EXPECT_TRUE(alone.narrow(1, 0, 300).equal(linear_map(x, weight.narrow(0, 0, 300))));
}

TEST(FewRowsGradient, IsThatOfTheProduct) {
  const at::Tensor x = normal({1, 2, 33}, 1, at::kFloat), weight = normal({12, 33}, 2, at::kFloat),
                   bias = normal({12}, 3, at::kFloat), dy = normal({1, 2, 12}, 4, at::kFloat);
  const auto gradients = [&](at::ScalarType dtype) {
    std::vector<at::Tensor> in;
    for (const at::Tensor& one : {x, weight, bias}) in.push_back(one.to(dtype).clone().requires_grad_());
    return torch::autograd::grad({linear_map(in[0], in[1], in[2])}, in, {dy.to(dtype)});
  };
  const auto found = gradients(at::kFloat), exact = gradients(at::kDouble);
  for (size_t i = 0; i < found.size(); ++i) EXPECT_LE(relative_error(found[i], exact[i]), 1e-6) << i;
}

}  // namespace
}  // namespace longreach
