// The join of partial softmax attentions from its formula, with autograd's gradients. An empty part (lse =
// -inf) takes part with a finite stand-in whose weight is set to zero by where(), so that no gradient becomes
// NaN.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <limits>

#include "layers/ops/merge/merge.h"

namespace longreach {

IntervalAttentionOutput merge_attention_reference(const std::vector<IntervalAttentionOutput>& parts) {
  std::vector<at::Tensor> outputs, lses;
  const auto sum_type = parts.at(0).o.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  for (const auto& part : parts) {
    outputs.push_back(part.o.to(sum_type));
    lses.push_back(part.lse.to(sum_type).transpose(1, 2));
  }
  const at::Tensor o = at::stack(outputs), lse = at::stack(lses);  // [P, B, T, H, D], [P, B, T, H]
  const at::Tensor present = lse.detach() != -std::numeric_limits<double>::infinity();  // NaN is
  const at::Tensor safe = at::where(present, lse, at::zeros_like(lse));
  const at::Tensor any = present.any(0);
  // The shift only guards against overflow, so no gradient need flow through it.
  const at::Tensor lowest = at::full_like(safe, std::numeric_limits<float>::lowest());
  const at::Tensor shift = std::get<0>(at::where(present, safe, lowest).max(0)).detach() * any;
  const at::Tensor weight =
      at::where(present, (at::where(present, safe, shift) - shift).exp(), at::zeros_like(lse));
  const at::Tensor sum = at::where(any, weight.sum(0), at::full_like(shift, 1.0));
  const at::Tensor joined =
      (weight.unsqueeze(-1) * at::where(present.unsqueeze(-1), o, at::zeros_like(o))).sum(0);
  const at::Tensor total =
      at::where(any, sum.log() + shift, at::full_like(shift, -std::numeric_limits<double>::infinity()));
  return {(joined / sum.unsqueeze(-1)).to(parts[0].o.scalar_type()), total.transpose(1, 2)};
}

}  // namespace longreach
