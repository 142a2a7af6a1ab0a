// What the tape promises about the fused parts of a layer: gradients with create_graph, second derivatives,
// outputs that nothing depends on.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "layers/basic/loss.h"
#include "layers/basic/rope.h"
#include "layers/ops/rows/rows.h"
#include "tests/support/random_tensors.h"
#include "tests/support/tape_checks.h"

namespace longreach {
namespace {

using namespace test;

constexpr int64_t kTokens = 20, kHeads = 2, kDim = 8;

at::Tensor heads(uint64_t seed, at::ScalarType dtype = at::kFloat) {
  return normal({1, kTokens, kHeads, kDim}, seed, dtype, true);
}

std::vector<TapeCase> cases() {
  return {{"rms_norm",
           {heads(1), normal({kDim}, 2, at::kFloat, true)},
           [](const auto& x) { return sum_of_squares(rms_norm(x[0], x[1], 1e-6)); }},
          {"silu_product",
           {heads(1), heads(2)},
           [](const auto& x) { return sum_of_squares(silu_product(x[0], x[1])); }},
          {"chunked_cross_entropy",
           {normal({kTokens, kDim}, 1, at::kFloat, true), normal({11, kDim}, 2, at::kFloat, true)},
           [](const auto& x) {
             return chunked_cross_entropy(x[0], x[1], at::arange(kTokens).remainder(11)).loss_sum;
           }}};
}

TEST(Autograd, GradientsWithAGraphAreTheSameNumbers) {
  for (const TapeCase& c : cases()) expect_same_gradients_with_a_graph(c);
}

TEST(Autograd, ASecondDerivativeThatIsNotThereThrowsByName) {
  for (const TapeCase& c : cases()) expect_no_second_derivative(c);
}

TEST(Autograd, ARotationHasSecondDerivatives) {
  RotaryEmbedding rope(RopeConfig{}, kDim, 64);
  const Rotation rotation = rope.at(at::arange(kTokens).unsqueeze(0), at::kDouble);
  // The gradient of sum (R x)^4 / 4 with respect to x is R^T (R x)^3.
  const auto penalty = [&](const std::vector<at::Tensor>& x) {
    const at::Tensor y = rotate(x[0], rotation);
    return torch::autograd::grad({y.pow(4).sum() / 4}, {x[0]}, {}, true, true)[0];
  };
  const at::Tensor x = heads(1, at::kDouble), direction = normal(x.sizes(), 7);
  const at::Tensor second = torch::autograd::grad({(penalty({x}) * direction).sum()}, {x})[0];
  const at::Tensor expected = (penalty({(x + direction * 1e-5).detach().requires_grad_(true)}) -
                               penalty({(x - direction * 1e-5).detach().requires_grad_(true)})) /
                              2e-5;
  EXPECT_LE(relative_error(second, expected), 1e-7);
}

TEST(Autograd, AnUndefinedGradientOfTheOutputIsZero) {
  const at::Tensor x = heads(1);
  RotaryEmbedding rope(RopeConfig{}, kDim, 64);
  const Rotation rotation = rope.at(at::arange(kTokens).unsqueeze(0), at::kFloat);
  expect_zero_for_an_undefined_gradient("rotate", rotate(x, rotation));
  expect_zero_for_an_undefined_gradient("rms_norm", rms_norm(x, {}, 1e-6));
  expect_zero_for_an_undefined_gradient("silu_product", silu_product(x, x));
}

}  // namespace
}  // namespace longreach
