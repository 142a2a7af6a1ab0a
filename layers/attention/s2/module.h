// The module of S2-Attention, shared by s2.cpp (forward), context.cpp and decode.cpp; not a public header.
#pragma once
#include "layers/attention/common/softmax_attention.h"
#include "layers/attention/planned_traffic.h"
#include "layers/attention/s2/s2.h"

namespace longreach::s2 {

class S2Attention : public SoftmaxAttention, public TrafficPlanner {
 public:
  S2Attention(const S2Config& config, const LayerSite& site)
      : SoftmaxAttention(site, config.rope),
        pattern_(s2_pattern(config, site.num_heads, site.num_kv_heads)) {}

  AttentionOutput forward(const at::Tensor& x, const Batch& batch) override;
  std::unique_ptr<DecodeState> start_decoding(int64_t batch_size, int64_t max_tokens) const override;
  at::Tensor decode(const at::Tensor& x, DecodeState& state) override;
  double flops_per_token(int64_t seq_len) const override;
  PlannedTraffic planned_traffic(const std::shared_ptr<const ContextGroup>& context,
                                 at::ScalarType dtype) const override;

 private:
  at::Tensor attend_context(const Heads& heads, const std::shared_ptr<const ContextGroup>& context) const;

  S2Pattern pattern_;
};

}  // namespace longreach::s2
