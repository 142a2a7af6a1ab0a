// Interval attention from its formula: the whole score matrix, any floating dtype, gradients by autograd.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "layers/ops/common/check.h"
#include "layers/ops/common/masked_attention.h"
#include "layers/ops/interval_attention/checks.h"

namespace longreach {
namespace {

// Visible pairs of one document, [B or 1, H or 1, queries, keys]; key 0 of the document is key `offset` of
// the tensor.
at::Tensor document_mask(const IntervalMask& mask, const at::Tensor& lo, const at::Tensor& hi,
                         int64_t queries, int64_t keys, int64_t offset, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  const at::Tensor j = at::arange(keys, options);
  const at::Tensor p = at::arange(queries, options).add(keys - queries).unsqueeze(-1);
  at::Tensor inside = at::ones({1, 1, queries, keys}, options.dtype(at::kBool)), not_future = inside;
  if (lo.defined()) {
    not_future = j < (hi.to(at::kLong) - offset).unsqueeze(-1);
    inside = not_future & (j >= (lo.to(at::kLong) - offset).unsqueeze(-1));
  } else {
    if (mask.causal) not_future = inside & (j <= p);
    inside = mask.window > 0 ? not_future & (j > p - mask.window) : not_future;
  }
  return inside | (not_future & (j < mask.sinks));
}

}  // namespace

at::Tensor interval_mask_matrix(const IntervalMask& mask, int64_t batch, int64_t heads, int64_t queries,
                                int64_t keys) {
  check_interval_mask(mask, batch, heads, queries, keys);
  at::Tensor lo = mask.lo, hi = mask.hi;
  if (lo.defined()) {
    lo = lo.repeat_interleave(heads / lo.size(1), 1);
    hi = hi.repeat_interleave(heads / hi.size(1), 1);
  }
  const at::Device device = lo.defined() ? lo.device() : at::Device(at::kCPU);
  const int64_t batches = lo.defined() ? lo.size(0) : 1;
  if (!mask.cu_seqlens_q.defined())
    return document_mask(mask, lo, hi, queries, keys, 0, device).expand({batches, heads, queries, keys});
  at::Tensor whole =
      at::zeros({batches, heads, queries, keys}, at::TensorOptions().dtype(at::kBool).device(device));
  const int32_t *q = mask.cu_seqlens_q.const_data_ptr<int32_t>(),
                *k = mask.cu_seqlens_k.const_data_ptr<int32_t>();
  for (int64_t n = 0; n + 1 < mask.cu_seqlens_q.numel(); ++n) {
    const int64_t count = q[n + 1] - q[n];
    const at::Tensor rows_lo = lo.defined() ? lo.narrow(2, q[n], count) : lo;
    const at::Tensor rows_hi = hi.defined() ? hi.narrow(2, q[n], count) : hi;
    whole.narrow(2, q[n], count)
        .narrow(3, k[n], k[n + 1] - k[n])
        .copy_(document_mask(mask, rows_lo, rows_hi, count, k[n + 1] - k[n], k[n], device));
  }
  return whole;
}

IntervalAttentionOutput interval_attention_reference(const at::Tensor& q, const at::Tensor& k,
                                                     const at::Tensor& v, const IntervalMask& mask,
                                                     std::optional<double> scale) {
  check_interval_attention(q, k, v, mask);
  expect_dtype(q, "q", {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf});
  const int64_t heads = q.size(2);
  const double factor = scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3))));
  const at::Tensor visible =
      interval_mask_matrix(mask, q.size(0), heads, q.size(1), k.size(1)).to(q.device());
  auto [o, lse, weights] = masked_attention(q, k, v, visible, factor);
  return {o, lse};
}

}  // namespace longreach
