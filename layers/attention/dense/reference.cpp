// Dense attention from its formula.
#include <ATen/ops/ones.h>

#include "layers/attention/common/softmax_attention.h"
#include "layers/attention/dense/dense.h"

namespace longreach {

at::Tensor dense_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     const at::Tensor& cu_seqlens) {
  return each_document({q, k, v}, cu_seqlens, [](const Heads& document) {
    const int64_t tokens = document.q.size(1);
    return masked_softmax_attention(document, at::ones({tokens, tokens}, at::kBool).tril());
  });
}

}  // namespace longreach
