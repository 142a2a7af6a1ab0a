// The module of causal region routing, shared by biformer.cpp (forward), context.cpp and decode.cpp; not a
// public header.
#pragma once
#include "layers/attention/biformer/biformer.h"
#include "layers/attention/common/softmax_attention.h"
#include "layers/attention/planned_traffic.h"

namespace longreach::biformer {

class BiformerAttention : public SoftmaxAttention, public TrafficPlanner {
 public:
  BiformerAttention(const BiformerConfig& config, const LayerSite& site)
      : SoftmaxAttention(site, config.rope), routing_{.region = config.region, .topk = config.topk} {}

  AttentionOutput forward(const at::Tensor& x, const Batch& batch) override;
  std::unique_ptr<DecodeState> start_decoding(int64_t batch_size, int64_t max_tokens) const override;
  at::Tensor decode(const at::Tensor& x, DecodeState& state) override;
  double flops_per_token(int64_t seq_len) const override;
  PlannedTraffic planned_traffic(const std::shared_ptr<const ContextGroup>& context,
                                 at::ScalarType dtype) const override;

 private:
  at::Tensor attend_context(const Heads& heads, const std::shared_ptr<const ContextGroup>& context) const;

  BiformerRouting routing_;
};

}  // namespace longreach::biformer
