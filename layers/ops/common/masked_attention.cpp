// The whole score matrix, any floating dtype, gradients by autograd.
#include "layers/ops/common/masked_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>

#include <limits>

namespace longreach {
namespace {

// [B, T, heads of x, D] -> [B, H, T, D], query head h reading head h * heads of x / H.
at::Tensor by_head(const at::Tensor& x, int64_t heads) {
  return x.repeat_interleave(heads / x.size(2), 2).transpose(1, 2);
}

bool all_finite(const at::Tensor& x) { return x.isfinite().all().item<bool>(); }

// 0 in place of what is not finite: products with it would carry NaN to pairs that are not seen, forward and
// backward.
at::Tensor finite_part(const at::Tensor& x) { return x.masked_fill(x.isfinite().logical_not(), 0.0); }

at::Tensor scores_of(const at::Tensor& q, const at::Tensor& k, at::ScalarType wide, double scale) {
  const auto product = [&](const at::Tensor& a, const at::Tensor& b) {
    return a.transpose(1, 2).matmul(by_head(b, q.size(2)).transpose(-1, -2)).to(wide) * scale;
  };
  if (all_finite(q) && all_finite(k)) return product(q, k);
  const at::Tensor given = product(q.detach(), k.detach());
  return product(finite_part(q), finite_part(k)) + given.masked_fill(given.isfinite(), 0.0);
}

// weights v; what is not finite reaches the queries that see it.
at::Tensor weighted_values(const at::Tensor& weights, const at::Tensor& v, const at::Tensor& visible) {
  const int64_t heads = weights.size(1);
  if (all_finite(v)) return weights.matmul(by_head(v, heads));
  const double infinity = std::numeric_limits<double>::infinity();
  const at::Tensor pairs = visible.to(at::kFloat);
  const auto sees = [&](const at::Tensor& which) {
    return pairs.matmul(by_head(which.to(at::kFloat), heads)) > 0;
  };
  const at::Tensor rises = sees(v == infinity), falls = sees(v == -infinity), neither = sees(v != v);
  return weights.matmul(by_head(finite_part(v), heads))
      .masked_fill(rises, infinity)
      .masked_fill(falls, -infinity)
      .masked_fill(neither.logical_or(rises.logical_and(falls)), std::numeric_limits<double>::quiet_NaN());
}

}  // namespace

MaskedAttention masked_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const at::Tensor& visible, double scale) {
  const int64_t heads = q.size(2);
  const auto lse_dtype = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const double infinity = std::numeric_limits<double>::infinity();
  at::Tensor scores = scores_of(q, k, lse_dtype, scale);
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
  // By the maximum and not by lse, in which the sum of huge scores is lost.
  const at::Tensor weights = at::softmax(scores, -1).masked_fill(visible.logical_not(), 0.0);
  const at::Tensor o = weighted_values(weights.to(q.scalar_type()), v, visible).transpose(1, 2);
  return {o, lse.masked_fill(none.squeeze(-1), -infinity), weights};
}

}  // namespace longreach
