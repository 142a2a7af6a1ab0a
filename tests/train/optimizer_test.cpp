// AdamW against its formula in double, clipping, state.
#include "train/optimizer.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using test::normal;

struct Expected {
  at::Tensor p, m, v;
  void step(const at::Tensor& gradient, const OptimizerConfig& c, double lr, double decay, int t) {
    const at::Tensor g = gradient.to(at::kDouble);
    p = p * (1 - lr * decay);
    m = c.beta1 * m + (1 - c.beta1) * g;
    v = c.beta2 * v + (1 - c.beta2) * g * g;
    const at::Tensor m_hat = m / (1 - std::pow(c.beta1, t)), v_hat = v / (1 - std::pow(c.beta2, t));
    p = p - lr * m_hat / (v_hat.sqrt() + c.eps);
  }
};

TEST(AdamW, FollowsTheFormulaAndDecaysMatricesOnly) {
  const OptimizerConfig config{.weight_decay = 0.3};
  at::Tensor matrix = normal({7, 9}, 1, at::kFloat, true), vector = normal({33}, 2, at::kFloat, true);
  AdamW optimizer({{"matrix", matrix}, {"vector", vector}}, config);
  const auto start = [](const at::Tensor& t) {
    const at::Tensor p = t.detach().to(at::kDouble);
    return Expected{p, p * 0, p * 0};
  };
  Expected a = start(matrix), b = start(vector);
  for (int t = 1; t <= 5; ++t) {
    matrix.mutable_grad() = normal({7, 9}, 10 + t, at::kFloat);
    vector.mutable_grad() = normal({33}, 20 + t, at::kFloat);
    a.step(matrix.grad(), config, 0.01, 0.3, t);
    b.step(vector.grad(), config, 0.01, 0.0, t);
    optimizer.step(0.01);
  }
  EXPECT_LT(test::relative_error(matrix, a.p), 1e-6);
  EXPECT_LT(test::relative_error(vector, b.p), 1e-6);
}

TEST(AdamW, ContinuesFromItsState) {
  at::Tensor one = normal({4, 4}, 1, at::kFloat, true), two = one.detach().clone().requires_grad_(true);
  AdamW first({{"w", one}}, {}), second({{"w", two}}, {});
  const auto step = [](AdamW& optimizer, at::Tensor& parameter, uint64_t seed) {
    parameter.mutable_grad() = normal({4, 4}, seed, at::kFloat);
    optimizer.step(0.1);
  };
  step(first, one, 5);
  step(second, two, 5);
  AdamW restored({{"w", two}}, {});
  restored.load(second.state());
  step(first, one, 6);
  step(restored, two, 6);
  EXPECT_TRUE(one.equal(two));
}

TEST(AdamW, RefusesStateOfAnotherModelAndChangesNothing) {
  at::Tensor parameter = normal({4, 4}, 1, at::kFloat, true), other = normal({4, 5}, 1, at::kFloat, true);
  AdamW optimizer({{"w", parameter}}, {}), wrong({{"w", other}}, {});
  EXPECT_THROW(optimizer.load(wrong.state()), CheckpointError);
  EXPECT_THROW(optimizer.load({}), CheckpointError);
}

// The fused kernel refuses parameters of a CUDA device whose step counter lies elsewhere; no device is needed to see where it is.
TEST(AdamW, KeepsItsStateWhereTheParametersAre) {
  const at::Device meta(at::kMeta);
  AdamW optimizer({{"w", at::empty({4, 4}, at::TensorOptions(meta))}}, {});
  for (const auto& [name, tensor] : optimizer.state()) {
    EXPECT_EQ(tensor.device(), meta) << name;
    EXPECT_EQ(tensor.scalar_type(), at::kFloat) << name;
  }
}

TEST(Gradients, NormAndClipping) {
  at::Tensor a = normal({30}, 1, at::kFloat, true), b = normal({5, 5}, 2, at::kFloat, true);
  a.mutable_grad() = normal({30}, 3, at::kFloat);
  b.mutable_grad() = normal({5, 5}, 4, at::kFloat);
  const NamedParameters parameters = {{"a", a}, {"b", b}};
  const double expected = std::sqrt(a.grad().to(at::kDouble).pow(2).sum().item<double>() +
                                    b.grad().to(at::kDouble).pow(2).sum().item<double>());
  EXPECT_NEAR(gradient_norm(parameters).norm, expected, 1e-5);
  clip_gradients(parameters, gradient_norm(parameters).norm, 1.0);
  EXPECT_NEAR(gradient_norm(parameters).norm, 1.0, 1e-5);
  b.grad().detach().fill_(std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(gradient_norm(parameters).first_nonfinite, "b");
}

}  // namespace
}  // namespace longreach
