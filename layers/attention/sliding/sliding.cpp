// Sliding-window attention: projections, rotary embedding, one call of the fused operator.
#include "layers/attention/sliding/sliding.h"

#include <algorithm>

#include "layers/attention/sliding/module.h"

namespace longreach {
namespace sliding {

AttentionOutput SlidingAttention::forward(const at::Tensor& x, const Batch& batch) {
  const Heads heads = project(x, batch);
  if (batch.context) return {merge(attend_context(heads, batch.context)), {}};
  if (site_.implementation == Implementation::reference)
    return {merge(sliding_attention_reference(heads.q, heads.k, heads.v, config_.window, config_.sinks,
                                              batch.cu_seqlens)),
            {}};
  const IntervalMask mask{.window = config_.window,
                          .sinks = config_.sinks,
                          .cu_seqlens_q = batch.cu_seqlens,
                          .cu_seqlens_k = batch.cu_seqlens};
  return {merge(attend(heads, mask, Implementation::fused)), {}};
}

double SlidingAttention::flops_per_token(int64_t seq_len) const {
  const auto tokens = static_cast<double>(std::max<int64_t>(seq_len, 1));
  const auto most = static_cast<double>(config_.window + config_.sinks);
  const double rising = std::min(tokens, most);  // queries that see every earlier key
  return flops((rising * (rising + 1.0) / 2.0 + (tokens - rising) * most) / tokens);
}

}  // namespace sliding

std::shared_ptr<Attention> make_attention(const SlidingConfig& config, const LayerSite& site) {
  return std::make_shared<sliding::SlidingAttention>(config, site);
}

}  // namespace longreach
