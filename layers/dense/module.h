// The module of dense attention, shared by dense.cpp (forward) and decode.cpp; not a public header.
#pragma once
#include "layers/dense/dense.h"
#include "layers/softmax_attention.h"

namespace longreach::dense {

class DenseAttention : public SoftmaxAttention {
 public:
  DenseAttention(const DenseConfig& config, const LayerSite& site) : SoftmaxAttention(site, config.rope) {}

  AttentionOutput forward(const at::Tensor& x, const Batch& batch) override;
  std::unique_ptr<DecodeState> start_decoding(int64_t batch_size, int64_t max_tokens) const override;
  at::Tensor decode(const at::Tensor& x, DecodeState& state) override;
  double flops_per_token(int64_t seq_len) const override;
};

}  // namespace longreach::dense
