// Partial attentions to join, and the results and gradients of a join.
#pragma once
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "layers/ops/merge/merge.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {

inline constexpr float kEmpty = -std::numeric_limits<float>::infinity();
using Parts = std::vector<IntervalAttentionOutput>;

// Parts of B2 T5 H3, three or more: some rows are empty in one, in two, in all; a logarithm of 300 must not
// overflow.
inline Parts draw(at::ScalarType dtype, int64_t dim = 7, uint64_t count = 3) {
  Parts parts;
  for (uint64_t i = 0; i < count; ++i)
    parts.push_back({normal({2, 5, 3, dim}, i, dtype), normal({2, 3, 5}, 100 + i, at::kFloat)});
  parts[0].lse.select(2, 0).fill_(kEmpty);
  parts[1].lse.select(2, 1).fill_(kEmpty), parts[2].lse.select(2, 1).fill_(kEmpty);
  for (auto& part : parts) part.lse.select(2, 2).fill_(kEmpty);
  parts[1].lse.select(2, 3).fill_(300.0f), parts[2].lse.select(2, 4).fill_(-300.0f);
  return parts;
}

// o and lse, then the gradients of every part, for fixed gradients of the results.
inline std::vector<at::Tensor> run(const Parts& inputs, bool fused, bool exact) {
  Parts parts;
  std::vector<at::Tensor> wanted;
  for (const auto& [o, lse] : inputs) {
    parts.push_back({(exact ? o.to(at::kDouble) : o).detach().clone().requires_grad_(true),
                     (exact ? lse.to(at::kDouble) : lse).detach().clone().requires_grad_(true)});
    wanted.push_back(parts.back().o), wanted.push_back(parts.back().lse);
  }
  const auto [o, lse] = fused ? merge_attention(parts) : merge_attention_reference(parts);
  const auto grads =
      torch::autograd::grad({o, lse}, wanted,
                            {normal(o.sizes(), 20, inputs[0].o.scalar_type()).to(o.scalar_type()),
                             normal(lse.sizes(), 21, at::kFloat).to(lse.scalar_type())});
  std::vector<at::Tensor> results{o.detach(), lse.detach()};
  results.insert(results.end(), grads.begin(), grads.end());
  return results;
}

inline at::Tensor finite(const at::Tensor& x) { return x.masked_fill(x == kEmpty, 0); }

}  // namespace longreach::test
