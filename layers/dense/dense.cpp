// Dense attention: projections, rotary embedding, one call of the fused operator.
#include "layers/dense/dense.h"

#include "layers/dense/module.h"

namespace longreach {
namespace dense {

AttentionOutput DenseAttention::forward(const at::Tensor& x, const Batch& batch) {
  return forward_interval(x, batch, DenseConfig::kind, {}, [&](const Heads& heads) {
    return dense_attention_reference(heads.q, heads.k, heads.v, batch.cu_seqlens);
  });
}

double DenseAttention::flops_per_token(int64_t seq_len) const {
  return flops(static_cast<double>(seq_len + 1) / 2.0);
}

}  // namespace dense

std::shared_ptr<Attention> make_attention(const DenseConfig& config, const LayerSite& site) {
  return std::make_shared<dense::DenseAttention>(config, site);
}

}  // namespace longreach
