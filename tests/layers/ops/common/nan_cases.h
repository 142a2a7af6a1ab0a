// Where NaN may appear when one token of one input holds it: at the pairs that see it and nowhere else, for
// operators with a softmax over keys.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/support/random_tensors.h"

namespace longreach::test {

enum NanPlace : size_t { kQuery, kKey, kValue, kOutputGradient };

struct NanProblem {
  std::vector<at::Tensor> inputs;  // q, k, v, dO
  at::Tensor d_lse;
};

// o, lse, dq, dk, dv.
template <class Operation>
std::vector<at::Tensor> nan_results(const NanProblem& problem, Operation operation) {
  std::vector<at::Tensor> leaves;
  for (size_t i = 0; i < 3; ++i) leaves.push_back(problem.inputs[i].detach().clone().requires_grad_(true));
  const auto out = operation(leaves[0], leaves[1], leaves[2]);
  const at::Tensor d_lse = problem.d_lse.to(out.lse.scalar_type()).masked_fill(out.lse.detach().isinf(), 0.0);
  const auto grads =
      torch::autograd::grad({out.o, out.lse}, leaves, {problem.inputs[kOutputGradient], d_lse});
  return {out.o.detach(), out.lse.detach(), grads[0], grads[1], grads[2]};
}

// What must be NaN, bool, of the shapes of o, lse, dq, dk, dv up to their features: visible [H, Tq, Tk]; one
// batch entry, one key and value head. bad [H, Tq]: the queries whose scores or outputs meet the NaN.
inline std::vector<at::Tensor> nan_pattern(const at::Tensor& visible, const at::Tensor& bad, NanPlace place) {
  const at::Tensor none = at::zeros_like(bad), rows = bad.transpose(0, 1).unsqueeze(0),
                   keys = (visible.logical_and(bad.unsqueeze(-1))).any(1).any(0).view({1, -1, 1}),
                   no_keys = at::zeros_like(keys), no_rows = at::zeros_like(rows);
  return {place == kOutputGradient ? no_rows : rows,
          (place == kQuery || place == kKey ? bad : none).unsqueeze(0), rows, keys,
          place == kValue ? no_keys : keys};
}

// fused and reference: (q, k, v) -> o and lse. Elements that must not be NaN equal those of the float64
// reference on inputs without NaN. Gradients of the reference are not looked at (gradients = false).
template <class Operation, class Exact>
void expect_nan_at_pairs_that_see_it(const at::Tensor& visible, int64_t size, at::ScalarType dtype,
                                     Operation operation, Exact exact, bool gradients = true) {
  const int64_t heads = visible.size(0), queries = visible.size(1), keys = visible.size(2);
  const auto input = [&](at::IntArrayRef shape, uint64_t seed) { return normal(shape, seed).to(dtype); };
  const NanProblem clean{{input({1, queries, heads, size}, 1), input({1, keys, 1, size}, 2),
                          input({1, keys, 1, size}, 3), input({1, queries, heads, size}, 4)},
                         normal({1, heads, queries}, 5)};
  NanProblem wide = clean;
  for (at::Tensor& x : wide.inputs) x = x.to(at::kDouble);
  const std::vector<at::Tensor> expected = nan_results(wide, exact);
  for (const NanPlace place : {kQuery, kKey, kValue, kOutputGradient}) {
    const bool of_query = place == kQuery || place == kOutputGradient;
    const int64_t token = (of_query ? queries : keys) / 2;
    NanProblem problem = clean;
    problem.inputs[place] = clean.inputs[place].clone();
    problem.inputs[place].select(1, token).select(1, 0).select(1, size / 2).fill_(std::nan(""));
    at::Tensor bad = at::zeros_like(visible.select(2, 0));
    if (of_query)
      bad.select(0, 0).select(0, token).copy_(visible.select(0, 0).select(0, token).any());
    else
      bad = visible.select(2, token).clone();
    const auto pattern = nan_pattern(visible, bad, place);
    const auto found = nan_results(problem, operation);
    const char* names[] = {"o", "lse", "dq", "dk", "dv"};
    for (size_t i = 0; i < (gradients ? found.size() : 2); ++i) {
      SCOPED_TRACE(std::string(names[i]) + " with NaN in input " + std::to_string(place));
      // A value's NaN stands in one feature; only that one of o meets it.
      const at::Tensor nan = found[i].isnan(), rows = i == 1 ? nan : nan.any(-1);
      EXPECT_TRUE(rows.equal(pattern[i]))
          << "NaN at " << rows.nonzero() << " expected at " << pattern[i].nonzero();
      const at::Tensor kept =
          (i == 1 ? pattern[i] : pattern[i].unsqueeze(-1)).logical_or(expected[i].isinf());
      EXPECT_LE(
          relative_error(found[i].to(at::kDouble).masked_fill(kept, 0.0), expected[i].masked_fill(kept, 0.0)),
          dtype == at::kFloat ? 5e-6 : 1e-2);
    }
  }
}

}  // namespace longreach::test
