// Sliding-window attention from its formula.
#include <ATen/ops/arange.h>

#include "layers/attention/common/softmax_attention.h"
#include "layers/attention/sliding/sliding.h"

namespace longreach {

at::Tensor sliding_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                       int64_t window, int64_t sinks, const at::Tensor& cu_seqlens) {
  return each_document({q, k, v}, cu_seqlens, [&](const Heads& document) {
    const at::Tensor j = at::arange(document.q.size(1), at::kLong), i = j.unsqueeze(1);
    return masked_softmax_attention(document, (j <= i).logical_and((j > i - window).logical_or(j < sinks)));
  });
}

}  // namespace longreach
