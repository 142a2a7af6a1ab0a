// Scores so large that a float of their size has no room for differences of one: equal ones still share the
// weight, a larger one takes all of it, and what the mask sees is seen. For operators with a softmax over
// keys.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <utility>
#include <vector>

#include "tests/support/random_tensors.h"

namespace longreach::test {

// visible [H, Tq, Tk], one batch entry, one key and value head; operation: (q, k, v) -> o and lse, with the
// default scale of heads of 16.
template <class Operation>
void expect_huge_scores_weigh(const at::Tensor& visible, at::ScalarType dtype, Operation operation) {
  const int64_t heads = visible.size(0), queries = visible.size(1), keys = visible.size(2), best = keys / 2;
  const at::Tensor pairs = visible.to(at::kDouble), seen = visible.any(-1),
                   sees_best = visible.select(2, best);
  const at::Tensor values = normal({1, keys, 1, 16}, 3).to(dtype);
  const at::Tensor mean =
      pairs.matmul(values.to(at::kDouble)[0].transpose(0, 1)) / pairs.sum(-1, true).clamp_min(1.0);
  // Odd numbers of eight bits, whose scaled product is rounded.
  const double query = 155.0 / 128, key = 203.0 / 128, near = 199.0 / 128, far = 207.0 / 128;
  for (const auto& [exponent, sign] :
       std::vector<std::pair<int, double>>{{62, -1}, {48, -1}, {48, 1}, {16, -1}}) {
    SCOPED_TRACE(testing::Message() << sign << " x 4^" << exponent);
    at::Tensor q = at::zeros({1, queries, heads, 16}, dtype), k = at::zeros({1, keys, 1, 16}, dtype);
    q.select(3, 0).fill_(std::ldexp(query, exponent));
    k.select(3, 0).fill_(sign * std::ldexp(key, exponent));
    k.select(1, best).select(2, 0).fill_(sign * std::ldexp(sign < 0 ? near : far, exponent));
    const at::Tensor v = values.clone();
    for (at::Tensor* leaf : {&q, &k}) leaf->requires_grad_(true);
    v.requires_grad_(true);
    const auto out = operation(q, k, v);
    const at::Tensor expected =
        at::where(sees_best.unsqueeze(-1), values.to(at::kDouble)[0][best], mean).transpose(0, 1);
    EXPECT_LE((out.o[0].to(at::kDouble) - expected).abs().max().template item<double>(),
              dtype == at::kBFloat16 ? 2e-2 : 1e-5);
    const double score = sign * query * key * std::ldexp(0.25, 2 * exponent);
    const at::Tensor lse = out.lse[0].to(at::kDouble);
    EXPECT_TRUE(lse.isinf().equal(seen.logical_not()));
    EXPECT_LE((lse / score - 1.0).masked_fill(seen.logical_not(), 0.0).abs().max().template item<double>(),
              0.03);
    const auto grads = torch::autograd::grad({out.o.sum()}, {q, k, v});
    for (const at::Tensor& grad : grads) EXPECT_FALSE(grad.isnan().any().template item<bool>());
  }
}

}  // namespace longreach::test
