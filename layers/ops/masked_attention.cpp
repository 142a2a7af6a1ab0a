// The whole score matrix, any floating dtype, gradients by autograd.
#include "layers/ops/masked_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/zeros.h>

#include <limits>

namespace longreach {
namespace {

// [B, T, heads of x, D] -> [B, H, T, D], query head h reading head h * heads of x / H.
at::Tensor by_head(const at::Tensor& x, int64_t heads) {
  return x.repeat_interleave(heads / x.size(2), 2).transpose(1, 2);
}

}  // namespace

MaskedAttention masked_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const at::Tensor& visible, double scale) {
  const int64_t heads = q.size(2);
  const auto lse_dtype = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const double infinity = std::numeric_limits<double>::infinity();
  at::Tensor scores = q.transpose(1, 2).matmul(by_head(k, heads).transpose(-1, -2)).to(lse_dtype) * scale;
  if (k.size(1) == 0) {
    const at::Tensor empty = q.sum(-1).transpose(1, 2).to(lse_dtype) * 0.0;
    const at::Tensor o = at::zeros({q.size(0), q.size(1), heads, v.size(3)}, q.options());
    return {o + empty.transpose(1, 2).unsqueeze(-1).to(q.scalar_type()), empty - infinity, scores};
  }
  // Rows that see nothing take a finite score everywhere, so that no NaN arises in their gradients, and are
  // cut off last.
  const at::Tensor none = visible.any(-1, true).logical_not();
  scores = scores.masked_fill(visible.logical_not() & none.logical_not(), -infinity).masked_fill(none, 0.0);
  const at::Tensor lse = at::logsumexp(scores, {-1});
  const at::Tensor weights = (scores - lse.unsqueeze(-1)).exp().masked_fill(none, 0.0);
  const at::Tensor o = weights.to(q.scalar_type()).matmul(by_head(v, heads)).transpose(1, 2);
  return {o, lse.masked_fill(none.squeeze(-1), -infinity), weights};
}

}  // namespace longreach
