// The module of InfLLM-V2, shared by infllm.cpp (forward), context.cpp and decode.cpp; not a public header.
#pragma once
#include "layers/attention/common/softmax_attention.h"
#include "layers/attention/infllm/infllm.h"
#include "layers/attention/planned_traffic.h"
#include "layers/ops/document.h"

namespace longreach::infllm {

// Documents whose queries are the last of their keys, with the strides whose means lie behind each other.
std::vector<PackedDocument> documents_of(const InfllmConfig& config, const at::Tensor& cu_seqlens,
                                         int64_t queries, int64_t keys);

// Of all queries that choose, document by document: int32 [B, HK, N, kept_blocks].
at::Tensor lists_of(const at::Tensor& q, const at::Tensor& means, const InfllmConfig& config,
                    const std::vector<PackedDocument>& documents);

class InfllmAttention : public SoftmaxAttention, public TrafficPlanner {
 public:
  InfllmAttention(const InfllmConfig& config, const LayerSite& site);

  AttentionOutput forward(const at::Tensor& x, const Batch& batch) override;
  std::unique_ptr<DecodeState> start_decoding(int64_t batch_size, int64_t max_tokens) const override;
  at::Tensor decode(const at::Tensor& x, DecodeState& state) override;
  double flops_per_token(int64_t seq_len) const override;
  PlannedTraffic planned_traffic(const std::shared_ptr<const ContextGroup>& context,
                                 at::ScalarType dtype) const override;

 private:
  // Softmax over all earlier keys: `attend`, or `attend_decoding`, which has no gradient.
  using Dense = at::Tensor (*)(const Heads&, const IntervalMask&, Implementation);

  // o [B, n, H, D] of the last n tokens of each document, by the means of its strides.
  at::Tensor attend_chosen(const Heads& heads, const at::Tensor& means, const at::Tensor& cu_seqlens,
                           Dense dense) const;
  at::Tensor attend_context(const Heads& heads, const std::shared_ptr<const ContextGroup>& context) const;

  const InfllmConfig config_;
};

}  // namespace longreach::infllm
