// What the tests of operators with a softmax over keys share: a run of an implementation with gradients, and
// the comparison with the float64 reference.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <random>
#include <vector>

#include "layers/ops/cpu/parallel.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {

// o, lse (0 in place of -inf), dq, dk, dv of one implementation, in this order; an operator may append more.
using AttentionResult = std::vector<at::Tensor>;

// Runs operation(q, k, v), which returns o and lse among others, and its backward pass for a case of either
// operator. Inputs are rounded to `rounding` first, so that runs in different dtypes see the same numbers.
template <class Case, class Operation>
AttentionResult attention_results(const Case& c, at::ScalarType dtype, at::ScalarType rounding,
                                  Operation operation) {
  const auto input = [&](at::IntArrayRef shape, uint64_t salt, double magnitude) {
    return (normal(shape, c.seed * 16 + salt) * magnitude).to(rounding).to(dtype);
  };
  const std::vector<at::Tensor> inputs{
      input({c.batch, c.queries, c.heads, c.qk_size}, 0, c.magnitude).requires_grad_(),
      input({c.batch, c.keys, c.key_heads, c.qk_size}, 1, 1.0).requires_grad_(),
      input({c.batch, c.keys, c.value_heads, c.v_size}, 2, 1.0).requires_grad_()};
  const auto output = operation(inputs[0], inputs[1], inputs[2]);
  const at::Tensor d_o = input({c.batch, c.queries, c.heads, c.v_size}, 3, 1.0);
  const at::Tensor d_lse = input({c.batch, c.heads, c.queries}, 4, 1.0).to(output.lse.scalar_type());
  // d(lse) of a row that sees nothing leads nowhere.
  const at::Tensor nothing = output.lse.detach().isinf();
  std::vector<at::Tensor> outputs, gradients;
  if (c.gradient_of_o) outputs.push_back(output.o), gradients.push_back(d_o);
  if (c.gradient_of_lse) outputs.push_back(output.lse), gradients.push_back(d_lse.masked_fill(nothing, 0.0));
  const auto grads = torch::autograd::grad(outputs, inputs, gradients, std::nullopt, false, true);
  AttentionResult result{output.o.detach(), output.lse.detach().masked_fill(nothing, 0.0)};
  for (size_t i = 0; i < grads.size(); ++i)
    result.push_back(grads[i].defined() ? grads[i] : at::Tensor(inputs[i].detach() * 0.0));
  return result;
}

// RMS errors of `fused` against `exact` are at most max(floor of the dtype, 2 x those of the reference in
// that dtype, `plain`).
inline void expect_within_rounding(const AttentionResult& fused, const AttentionResult& exact,
                                   const AttentionResult& plain, at::ScalarType dtype) {
  const double floor = dtype == at::kFloat ? 5e-6 : 1e-2;
  const char* names[] = {"o", "lse", "dq", "dk", "dv", "block_max", "block_sum"};
  for (size_t i = 0; i < exact.size(); ++i) {
    ASSERT_EQ(fused[i].sizes(), exact[i].sizes()) << names[i];
    if (exact[i].numel() == 0) continue;
    if (exact[i].abs().max().item<double>() == 0.0) {
      EXPECT_EQ(fused[i].abs().max().item<double>(), 0.0) << names[i];
      continue;
    }
    const double limit = std::max(floor, 2.0 * relative_error(plain[i], exact[i]));
    EXPECT_LE(relative_error(fused[i], exact[i]), limit) << names[i];
  }
}

// results() gives the same bits on one thread and on two. Two first: ATen's pool does not grow again once it
// has run with one.
inline void expect_same_bits_on_two_threads(const std::function<std::vector<AttentionResult>()>& results) {
  set_num_threads(2);
  const auto two = results();
  set_num_threads(1);
  const auto one = results();
  for (size_t i = 0; i < one.size(); ++i)
    for (size_t j = 0; j < one[i].size(); ++j)
      EXPECT_TRUE(at::equal(one[i][j], two[i][j])) << "result " << i << ", tensor " << j;
}

// As large as x, full of NaN.
inline at::Tensor poisoned(const at::Tensor& x) { return at::full(x.sizes(), std::nan(""), x.options()); }

inline at::Tensor int_tensor(const std::vector<int32_t>& values, at::IntArrayRef shape) {
  at::Tensor tensor = at::full(shape, 0, at::kInt);
  std::copy(values.begin(), values.end(), tensor.data_ptr<int32_t>());
  return tensor;
}

// Draws the sizes of random cases.
struct Draw {
  explicit Draw(uint64_t seed) : random(seed) {}

  int64_t operator()(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  }
  int64_t divisor(int64_t whole) {
    int64_t n = (*this)(1, whole);
    while (whole % n != 0) --n;
    return n;
  }
  // Where four documents begin and end, some of them maybe empty; as cu_seqlens.
  std::vector<int32_t> cuts(int64_t total) {
    std::vector<int32_t> cuts{0, static_cast<int32_t>(total)};
    for (int i = 0; i < 3; ++i) cuts.push_back(static_cast<int32_t>((*this)(0, total)));
    std::sort(cuts.begin(), cuts.end());
    return cuts;
  }
  at::Tensor cu_seqlens(int64_t total) { return int_tensor(cuts(total), {5}); }

  std::mt19937_64 random;
};

}  // namespace longreach::test
