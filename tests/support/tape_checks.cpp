#include "tests/support/tape_checks.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>

#include "core/error.h"
#include "tests/support/errors.h"

namespace longreach::test {

at::Tensor sum_of_squares(const at::Tensor& x) { return x.square().sum(); }

void expect_same_gradients_with_a_graph(const TapeCase& c) {
  SCOPED_TRACE(c.name);
  const auto plain = torch::autograd::grad({c.value(c.leaves)}, c.leaves);
  const auto again = torch::autograd::grad({c.value(c.leaves)}, c.leaves, {}, /*retain_graph=*/true,
                                           /*create_graph=*/true);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_TRUE(at::equal(plain[i], again[i])) << "leaf " << i;
}

void expect_no_second_derivative(const TapeCase& c) {
  SCOPED_TRACE(c.name);
  for (const at::Tensor& leaf : c.leaves) {
    const auto gradient = torch::autograd::grad({c.value(c.leaves)}, {leaf}, {}, true, true)[0];
    expect_error<UserError>(c.name + ": no second derivative", [&] { sum_of_squares(gradient).backward(); });
  }
}

void expect_zero_for_an_undefined_gradient(const std::string& name, const at::Tensor& output) {
  SCOPED_TRACE(name);
  const auto& node = output.grad_fn();
  for (const at::Tensor& gradient : (*node)(std::vector<at::Tensor>(node->num_inputs())))
    if (gradient.defined()) {
      EXPECT_EQ(gradient.abs().max().item<double>(), 0.0);
    }
}

}  // namespace longreach::test
