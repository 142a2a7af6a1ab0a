// RMSNorm against its formula and central differences.
#include "layers/basic/norm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;

at::Tensor formula(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return x / (x.square().mean(-1, true) + eps).sqrt() * weight;
}

TEST(RmsNorm, IsTheFormula) {
  const at::Tensor x = normal({3, 5, 17}, 1), weight = normal({17}, 2);
  EXPECT_LE(relative_error(rms_norm(x, weight, 1e-5), formula(x, weight, 1e-5)), 1e-14);
  EXPECT_LE(relative_error(rms_norm(x.to(at::kFloat), weight.to(at::kFloat), 1e-5), formula(x, weight, 1e-5)),
            1e-6);
  EXPECT_LE(relative_error(rms_norm(x, {}, 0.3), formula(x, weight.new_ones({17}), 0.3)), 1e-14);
}

TEST(RmsNorm, GradientsAreThoseOfTheFormula) {
  const auto f = [](const std::vector<at::Tensor>& in) { return rms_norm(in[0], in[1], 1e-3); };
  EXPECT_LE(gradient_error(f, {normal({3, 5, 7}, 1), normal({7}, 2)}), 1e-7);
  const auto plain = [](const std::vector<at::Tensor>& in) { return rms_norm(in[0], {}, 1e-3); };
  EXPECT_LE(gradient_error(plain, {normal({4, 9}, 3)}), 1e-7);
}

TEST(RmsNorm, BFloat16HasFloat32Statistics) {
  const at::Tensor x = normal({64, 256}, 1).to(at::kBFloat16), weight = normal({256}, 2);
  const at::Tensor exact = formula(x.to(at::kDouble), weight, 1e-5);
  const at::Tensor y = rms_norm(x, weight.to(at::kFloat), 1e-5);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_LE(relative_error(y, exact), 2.5e-3);  // one rounding to bfloat16
  EXPECT_LE(relative_error(rms_norm(x, weight.to(at::kFloat), 1e-5, at::kFloat), exact), 1e-6);
}

TEST(RmsNorm, ZeroRowsGiveZeroAndFiniteGradients) {
  const at::Tensor x = normal({2, 8}, 1).mul_(0.0).requires_grad_(true);
  const at::Tensor y = rms_norm(x, {}, 1e-6);
  y.sum().backward();
  EXPECT_EQ(y.abs().sum().item<double>(), 0.0);
  EXPECT_NEAR(x.grad()[0][0].item<double>(), 1e3, 1e-9);
}

TEST(RmsNorm, RefusesAWeightThatDoesNotFit) {
  EXPECT_THROW(rms_norm(normal({2, 8}, 1), normal({7}, 2), 1e-5), ShapeError);
}

TEST(Norm, OnlyRmsNormHasAWeight) {
  EXPECT_EQ(Norm("rmsnorm", 8, 1e-5).parameters().size(), 1u);
  EXPECT_EQ(Norm("srmsnorm", 8, 1e-5).parameters().size(), 0u);
  EXPECT_THROW(Norm("layernorm", 8, 1e-5), ConfigError);
}

}  // namespace
}  // namespace longreach
