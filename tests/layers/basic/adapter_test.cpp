// A linear map with an adapter: the formula, its gradient, its dropout, and the two matrices as one.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <cmath>

#include "layers/basic/linear.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;

LowRank some_adapter(double dropout = 0.0) {
  return {.a = normal({3, 10}, 1), .b = normal({6, 3}, 2), .scale = 1.7, .dropout = dropout, .seed = 5};
}

Linear adapted(double dropout = 0.0, bool bias = false) {
  Linear linear(10, 6, 0.3, 7, bias);
  linear.add_adapter({.r = 4, .scale = 2.0, .dropout = dropout, .seed = 9});
  return linear;
}

void set(Linear& linear, const char* name, const at::Tensor& value) {
  const at::NoGradGuard no_grad;
  linear.named_parameters()[name].copy_(value);
}

TEST(Adapter, IsTheFormula) {
  const at::Tensor x = normal({2, 5, 10}, 3), weight = normal({6, 10}, 4), bias = normal({6}, 5);
  const LowRank adapter = some_adapter();
  const at::Tensor expected =
      at::linear(x, weight, bias) + x.matmul(adapter.a.t()).matmul(adapter.b.t()) * adapter.scale;
  EXPECT_LE(relative_error(linear_map(x, Projection(weight, bias, adapter)), expected), 1e-14);
  EXPECT_TRUE(linear_map(x, Projection(weight, bias)).equal(at::linear(x, weight, bias)));
}

TEST(Adapter, HasItsGradientWithAndWithoutDropout) {
  for (const double dropout : {0.0, 0.4}) {
    LowRank adapter = some_adapter(dropout);
    const auto f = [&](const std::vector<at::Tensor>& in) {
      adapter.a = in[2];
      adapter.b = in[3];
      return linear_map(in[0], Projection(in[1], {}, adapter));
    };
    EXPECT_LE(gradient_error(f, {normal({2, 5, 10}, 3), normal({6, 10}, 4), adapter.a, adapter.b}), 1e-6);
  }
}

TEST(Adapter, ChangesNothingAtFirst) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const Linear plain(10, 6, 0.3, 7), with = adapted(0.5);
    const at::Tensor x = normal({2, 5, 10}, 3, dtype);
    EXPECT_TRUE(with.forward(x).equal(plain.forward(x)));
    EXPECT_EQ(with.forward(x).scalar_type(), dtype);
    EXPECT_TRUE(with.merged_weight().equal(plain.weight()));
  }
}

TEST(Adapter, BeginsAsInPeft) {
  const Linear linear = adapted();
  const auto parameters = linear.named_parameters();
  ASSERT_TRUE(parameters.contains("lora_A.weight") && parameters.contains("lora_B.weight"));
  const at::Tensor a = parameters["lora_A.weight"], b = parameters["lora_B.weight"];
  EXPECT_EQ(a.sizes(), (std::vector<int64_t>{4, 10}));
  EXPECT_EQ(b.sizes(), (std::vector<int64_t>{6, 4}));
  const double bound = 1.0 / std::sqrt(10.0);
  EXPECT_LE(a.abs().max().item<double>(), bound);
  EXPECT_NEAR(a.std().item<double>(), bound / std::sqrt(3.0), 0.05);
  EXPECT_EQ(b.abs().max().item<double>(), 0.0);
  EXPECT_TRUE(a.equal(adapted().named_parameters()["lora_A.weight"]));
  EXPECT_EQ(linear.flops(), 2.0 * (60 + 40 + 24));
}

TEST(Adapter, MergedIsTheSameMap) {
  Linear linear = adapted(0.5, true);
  set(linear, "lora_B.weight", normal({6, 4}, 8));
  set(linear, "bias", normal({6}, 9));
  linear.eval();
  const at::Tensor x = normal({3, 10}, 3, at::kFloat);
  const at::Tensor merged = linear_map(x, linear.merged_weight(), linear.named_parameters()["bias"]);
  EXPECT_LE(relative_error(linear.forward(x).detach(), merged.detach()), 1e-6);
  EXPECT_GT(relative_error(linear_map(x, linear.weight()).detach(), merged.detach()), 0.1);
}

TEST(Adapter, DropsInputsInTrainingByThePassAlone) {
  Linear linear = adapted(0.25);
  const at::Tensor ones = at::ones({4000, 10});
  set(linear, "lora_A.weight", at::eye(4, 10));
  set(linear, "lora_B.weight", at::eye(6, 4));
  // What is left is the mask itself: scale times 0 or 1 / (1 - dropout).
  const auto mask = [&] {
    return ((linear.forward(ones) - linear_map(ones, linear.weight())) / 2.0).detach().narrow(-1, 0, 4);
  };
  const at::Tensor first = mask();
  EXPECT_NEAR(first.eq(0).to(at::kDouble).mean().item<double>(), 0.25, 0.02);
  EXPECT_NEAR(first.mean().item<double>(), 1.0, 0.03);
  EXPECT_NEAR(first.max().item<double>(), 1.0 / 0.75, 1e-5);
  EXPECT_TRUE(mask().equal(first));
  linear.begin_pass(1);
  EXPECT_FALSE(mask().equal(first));
  linear.begin_pass(0);
  EXPECT_TRUE(mask().equal(first));
  linear.eval();
  EXPECT_LE(relative_error(mask(), at::ones({4000, 4})), 1e-6);
}

}  // namespace
}  // namespace longreach
