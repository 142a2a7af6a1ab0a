// Dense attention: projections, rotary embedding, one call of the fused operator or of cuDNN's.
#include "layers/attention/dense/dense.h"

#include "layers/attention/dense/module.h"
#include "layers/ops/cudnn_attention/cudnn_attention.h"

namespace longreach {
namespace dense {

DenseAttention::DenseAttention(const DenseConfig& config, const LayerSite& site)
    : SoftmaxAttention(site, config.rope, config.output_gate), backend_(config.backend) {}

AttentionOutput DenseAttention::forward(const at::Tensor& x, const Batch& batch) {
  const Heads heads = project(x, batch);
  if (batch.context) return {finish(x, attend_context(heads, batch.context)), {}};
  if (site_.implementation == Implementation::reference)
    return {finish(x, dense_attention_reference(heads.q, heads.k, heads.v, batch.cu_seqlens)), {}};
  if (takes_cudnn(backend_, heads, batch.cu_seqlens))
    return {finish(x, cudnn_attention(heads.q, heads.k, heads.v, /*causal=*/true).o), {}};
  const IntervalMask mask{.cu_seqlens_q = batch.cu_seqlens, .cu_seqlens_k = batch.cu_seqlens};
  return {finish(x, attend(heads, mask, Implementation::fused)), {}};
}

double DenseAttention::flops_per_token(int64_t seq_len) const {
  return flops(static_cast<double>(seq_len + 1) / 2.0);
}

}  // namespace dense

std::shared_ptr<Attention> make_attention(const DenseConfig& config, const LayerSite& site) {
  return std::make_shared<dense::DenseAttention>(config, site);
}

}  // namespace longreach
