// S2-Attention from its formula: a mask of tokens from the mask of blocks.
#include <ATen/ops/arange.h>

#include "layers/attention/common/softmax_attention.h"
#include "layers/attention/s2/s2.h"
#include "layers/ops/common/packed_documents.h"

namespace longreach {

at::Tensor s2_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const S2Pattern& pattern, const at::Tensor& cu_seqlens) {
  return each_document({q, k, v}, cu_seqlens, [&](const Heads& document) {
    const int64_t tokens = document.q.size(1), size = pattern.block_size;
    const auto of_tokens = [&](const at::Tensor& x, int64_t axis) {
      return x.repeat_interleave(size, axis).narrow(axis, 0, tokens);
    };
    const at::Tensor blocks = s2_block_mask(pattern, ceil_div(tokens, size)),
                     heads = of_tokens(of_tokens(blocks, 1), 2)
                                 .repeat_interleave(document.q.size(2) / pattern.heads, 0);
    const at::Tensor j = at::arange(tokens, at::kLong);
    return masked_softmax_attention(document, heads.logical_and(j <= j.unsqueeze(1)));
  });
}

}  // namespace longreach
