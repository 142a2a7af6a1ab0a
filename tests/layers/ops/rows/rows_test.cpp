// The CPU kernels of RMSNorm, silu(gate) up and the turn of the rotary embedding against their formulas in
// float64, on every instruction set.
#include <ATen/ops/cat.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "core/error.h"
#include "layers/ops/rows/rows.h"
#include "tests/layers/ops/cpu/cpu_target.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;

struct Results {
  at::Tensor y;
  std::vector<at::Tensor> gradients;
};

using Function = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

// y and the gradients of sum <dy, y>.
Results run(const Function& f, std::vector<at::Tensor> inputs, const at::Tensor& dy) {
  for (at::Tensor& input : inputs) input = input.detach().clone().requires_grad_(true);
  Results results{.y = f(inputs)};
  results.y.backward(dy.to(results.y.scalar_type()));
  results.y = results.y.detach();
  for (const at::Tensor& input : inputs) results.gradients.push_back(input.grad());
  return results;
}

at::Tensor norm_formula(const std::vector<at::Tensor>& in) {
  return in[0] / (in[0].square().mean(-1, true) + 1e-5).sqrt() * in[1];
}
at::Tensor norm_kernel(const std::vector<at::Tensor>& in) { return rms_norm(in[0], in[1], 1e-5); }
at::Tensor silu_formula(const std::vector<at::Tensor>& in) { return in[0] * at::sigmoid(in[0]) * in[1]; }
at::Tensor silu_kernel(const std::vector<at::Tensor>& in) { return silu_product(in[0], in[1]); }

// Float32: a few roundings of 6e-8, and sums of a hundred rows whose terms cancel. bfloat16: one rounding of
// what was computed in float32, 2^-8 of each element at most.
void expect_close(const at::Tensor& found, const at::Tensor& exact) {
  EXPECT_LE(relative_error(found, exact), found.scalar_type() == at::kBFloat16 ? std::exp2(-8) : 1e-6)
      << found.sizes() << " " << found.scalar_type();
}

void expect_formula(const Function& kernel, const Function& formula, const std::vector<at::Tensor>& inputs,
                    const at::Tensor& dy) {
  std::vector<at::Tensor> wide;
  for (const at::Tensor& input : inputs) wide.push_back(input.to(at::kDouble));
  const Results found = run(kernel, inputs, dy), exact = run(formula, wide, dy.to(at::kDouble));
  expect_close(found.y, exact.y);
  for (size_t i = 0; i < inputs.size(); ++i) expect_close(found.gradients[i], exact.gradients[i]);
}

class Rows : public CpuTarget {};
INSTANTIATE_TEST_SUITE_P(Targets, Rows, cpu_targets(), cpu_target_name);

TEST_P(Rows, NormIsItsFormulaForEverySizeAndDtype) {
  for (const int64_t size : {3, 16, 17, 40, 100, 384})
    for (const int64_t rows : {1, 5, 64, 130})
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        const at::Tensor x = normal({rows, size}, 1, dtype) + 0.3, dy = normal({rows, size}, 2, dtype);
        expect_formula(norm_kernel, norm_formula, {x, normal({size}, 3, at::kFloat) + 2}, dy);
      }
}

// y is the sign of x, so that its gradient is what two equal terms leave: as small as eps.
TEST_P(Rows, NormOfOneElement) {
  const at::Tensor x = normal({70, 1}, 1, at::kFloat).abs() + 1, weight = at::ones_like(x[0]);
  const Results found = run(norm_kernel, {x, weight}, at::ones_like(x));
  EXPECT_LE(relative_error(found.y, at::ones_like(x)), 1e-4);
  EXPECT_LE(found.gradients[0].abs().max().item<float>(), 1e-4);
}

TEST_P(Rows, NormTakesAndGivesDifferentDtypes) {
  const at::Tensor weight = normal({70}, 3, at::kFloat) + 2;
  for (const auto& [in, out] : {std::pair(at::kFloat, at::kBFloat16), std::pair(at::kBFloat16, at::kFloat)}) {
    const Function kernel = [out = out](const std::vector<at::Tensor>& x) {
      return rms_norm(x[0], x[1], 1e-5, out);
    };
    const at::Tensor x = normal({9, 70}, 1, in), dy = normal({9, 70}, 2, out);
    expect_formula(kernel, norm_formula, {x, weight}, dy);
    EXPECT_EQ(kernel({x, weight}).scalar_type(), out);
  }
}

at::Tensor turn_formula(const std::vector<at::Tensor>& in, const at::Tensor& cos, const at::Tensor& sin) {
  const auto halves = in[0].chunk(2, -1);
  const at::Tensor c = cos.unsqueeze(2), s = sin.unsqueeze(2);
  return at::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1);
}

// x dense, and as a view of q, k and v side by side.
TEST_P(Rows, TheTurnIsItsFormula) {
  for (const int64_t half : {1, 3, 16, 17, 32})
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const at::Tensor all = normal({2, 5, 9, 2 * half}, 1, dtype),
                       dy = normal({2, 5, 3, 2 * half}, 2, dtype);
      const at::Tensor angles = normal({2, 5, half}, 3) * 4, cos = angles.cos(), sin = angles.sin();
      const Function kernel = [&](const std::vector<at::Tensor>& in) {
        return rotate(in[0], cos.to(at::kFloat), sin.to(at::kFloat));
      };
      const Function formula = [&](const std::vector<at::Tensor>& in) { return turn_formula(in, cos, sin); };
      const at::Tensor x = all.narrow(2, 4, 3);
      expect_formula(kernel, formula, {x}, dy);
      EXPECT_TRUE(kernel({x}).equal(kernel({x.contiguous()})));
      EXPECT_TRUE(kernel({x.transpose(0, 1).contiguous().transpose(0, 1)}).equal(kernel({x})));
    }
}

TEST_P(Rows, SiluProductIsItsFormula) {
  for (const int64_t count : {1, 15, 16, 33, 40000})
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
      expect_formula(silu_kernel, silu_formula, {normal({count}, 1, dtype) * 3, normal({count}, 2, dtype)},
                     normal({count}, 3, dtype));
}

TEST_P(Rows, SiluProductHasItsLimitsFarFromZero) {
  const at::Tensor gate = at::tensor({-3e38f, -200.0f, -88.5f, -30.0f, 30.0f, 88.5f, 200.0f, 1e30f});
  const Results found = run(silu_kernel, {gate, at::ones_like(gate)}, at::ones_like(gate));
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(found.y[i].item<float>(), 0, 1e-11) << i;
    EXPECT_NEAR(found.gradients[0][i].item<float>(), 0, 1e-11) << i;
    EXPECT_EQ(found.y[4 + i].item<float>(), gate[4 + i].item<float>()) << i;
    EXPECT_NEAR(found.gradients[0][4 + i].item<float>(), 1, 1e-6) << i;
  }
}

TEST_P(Rows, NanStaysInItsRowAndInItsElement) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    at::Tensor x = normal({4, 37}, 1, dtype);
    x[2][36] = nan;
    const at::Tensor y = rms_norm(x, {}, 1e-5);
    EXPECT_EQ(y.isnan().sum().item<int64_t>(), 37);
    EXPECT_TRUE(y[2].isnan().all().item<bool>());
    const Results silu = run(silu_kernel, {x, at::ones_like(x)}, at::ones_like(x));
    EXPECT_EQ(silu.y.isnan().sum().item<int64_t>(), 1);
    EXPECT_EQ(silu.gradients[0].isnan().sum().item<int64_t>(), 1);
    EXPECT_TRUE(silu.y[2][36].isnan().item<bool>());
  }
}

TEST(Rows, StridedInputsAreReadAsTheyAre) {
  const at::Tensor x = normal({40, 6, 33}, 1, at::kFloat).transpose(0, 1),
                   dy = normal({6, 40, 33}, 2, at::kFloat);
  const at::Tensor weight = (normal({66}, 3, at::kFloat) + 2).slice(0, 0, 66, 2);
  expect_formula(norm_kernel, norm_formula, {x, weight}, dy);
  EXPECT_TRUE(rms_norm(x, weight, 1e-5).equal(rms_norm(x.contiguous(), weight, 1e-5)));
  EXPECT_TRUE(silu_product(x, dy).equal(silu_product(x.contiguous(), dy)));
  EXPECT_THROW(silu_product(x, dy.slice(0, 0, 5)), ShapeError);
  EXPECT_EQ(rms_norm(x.slice(1, 0, 0), weight, 1e-5).numel(), 0);
}

// A piece of work may end anywhere: the same bits, whoever computes it.
TEST(Rows, BitsDoNotDependOnWhereAPieceEnds) {
  const at::Tensor gate = normal({40001}, 1, at::kFloat), up = normal({40001}, 2, at::kFloat);
  const at::Tensor whole = silu_product(gate, up);
  EXPECT_TRUE(whole.slice(0, 0, 7).equal(silu_product(gate.slice(0, 0, 7), up.slice(0, 0, 7))));
  EXPECT_TRUE(whole.slice(0, 16385).equal(silu_product(gate.slice(0, 16385), up.slice(0, 16385))));
  const at::Tensor x = normal({200, 50}, 1, at::kFloat), dy = normal({200, 50}, 2, at::kFloat);
  const Results all = run(norm_kernel, {x, at::ones_like(x[0])}, dy),
                first = run(norm_kernel, {x.slice(0, 0, 70), at::ones_like(x[0])}, dy.slice(0, 0, 70));
  EXPECT_TRUE(all.y.slice(0, 0, 70).equal(first.y));
  EXPECT_TRUE(all.gradients[0].slice(0, 0, 70).equal(first.gradients[0]));
}

}  // namespace
}  // namespace longreach
