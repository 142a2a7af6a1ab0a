// From tensors to the kernel: checks, what each query sees, and who computes it.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "layers/ops/common/check.h"
#include "layers/ops/common/kernel_input.h"
#include "layers/ops/decode_attention/decode_attention.h"
#include "layers/ops/decode_attention/kernels.h"

namespace longreach {
namespace {

constexpr int64_t kFewQueries = 4;  // from here on tiles win

std::vector<decoding::Seen> seen_keys(const IntervalMask& mask, int64_t queries, int64_t keys) {
  std::vector<decoding::Seen> seen;
  for (int64_t i = 0; i < queries; ++i) {
    const int64_t position = i + keys - queries;
    int64_t lo = 0, hi = keys;
    if (mask.lo.defined()) {
      lo = mask.lo.const_data_ptr<int32_t>()[i * mask.lo.stride(2)];
      hi = mask.hi.const_data_ptr<int32_t>()[i * mask.hi.stride(2)];
    } else {
      if (mask.causal) hi = position + 1;
      if (mask.window > 0) lo = position - mask.window + 1;
    }
    hi = std::clamp(hi, int64_t{0}, keys);
    const int64_t sinks = std::min(mask.sinks, hi), latest = std::max(lo, sinks);
    seen.push_back({sinks, latest, sinks + std::max<int64_t>(0, hi - latest)});
  }
  return seen;
}

}  // namespace

at::Tensor decode_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const IntervalMask& mask) {
  const at::NoGradGuard no_grad;
  expect_attention_inputs(q, k, v);
  check<ShapeError>(!mask.cu_seqlens_q.defined(), "cu_seqlens_q: decode_attention takes whole rows");
  if (q.size(1) > kFewQueries || runs_on_cuda(q) || q.scalar_type() == at::kDouble)
    return interval_attention(q, k, v, mask).o;
  expect_kernel_input(q, "q");
  if (mask.lo.defined()) {
    for (const auto& [bound, name] : {std::pair(mask.lo, "lo"), std::pair(mask.hi, "hi")}) {
      expect_defined(bound, name);
      expect_shape(bound, name, {1, 1, q.size(1)});
      expect_dtype(bound, name, {at::kInt});
    }
  }
  const at::Tensor queries = dense_rows(q), keys = dense_rows(k), values = dense_rows(v);
  const at::Tensor o = at::empty({q.size(0), q.size(1), q.size(2), v.size(3)}, q.options());
  decoding::forward({.dtype = kernel_dtype(q),
                     .batches = q.size(0),
                     .queries = q.size(1),
                     .heads = q.size(2),
                     .key_heads = k.size(2),
                     .value_heads = v.size(2),
                     .qk_size = q.size(3),
                     .v_size = v.size(3),
                     .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(q.size(3)))),
                     .q = strided(queries),
                     .k = strided(keys),
                     .v = strided(values),
                     .o = strided(o),
                     .seen = seen_keys(mask, q.size(1), k.size(1))});
  return o;
}

}  // namespace longreach
