// What the tape promises about LRPE, whose backward pass is its own.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

#include "layers/attention/lightning/lrpe.h"
#include "tests/support/random_tensors.h"
#include "tests/support/tape_checks.h"

namespace longreach {
namespace {

using namespace test;

constexpr int64_t kTokens = 20, kHeads = 2, kDim = 8;

at::Tensor heads(uint64_t seed) { return normal({1, kTokens, kHeads, kDim}, seed, at::kFloat, true); }
at::Tensor theta(bool grad) { return normal({kHeads, 1, kDim}, 3, at::kFloat, grad); }
at::Tensor positions() { return at::arange(kTokens).unsqueeze(0); }

TapeCase lrpe_case() {
  return {"lrpe", {heads(1), heads(2), theta(true)}, [](const auto& x) {
            const auto [q, k] = lightning::lrpe(x[0], x[1], positions(), x[2]);
            return sum_of_squares(q + k);
          }};
}

TEST(Autograd, GradientsWithAGraphAreTheSameNumbers) { expect_same_gradients_with_a_graph(lrpe_case()); }

TEST(Autograd, ASecondDerivativeThatIsNotThereThrowsByName) { expect_no_second_derivative(lrpe_case()); }

TEST(Autograd, PositionsThatChangeBeforeBackwardAreAnError) {
  const at::Tensor q = heads(1), places = positions();
  const at::Tensor turned = lightning::lrpe(q, q, places, theta(false)).first.sum();
  places.add_(1);
  EXPECT_THROW(turned.backward(), c10::Error);
}

TEST(Autograd, AnUndefinedGradientOfTheOutputIsZero) {
  const at::Tensor x = heads(1);
  expect_zero_for_an_undefined_gradient("lrpe", lightning::lrpe(x, x, positions(), theta(false)).first);
}

}  // namespace
}  // namespace longreach
