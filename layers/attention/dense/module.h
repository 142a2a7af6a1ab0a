// The module of dense attention, shared by dense.cpp (forward), context.cpp, decode.cpp and backend.cpp; not
// a public header.
#pragma once
#include "layers/attention/common/softmax_attention.h"
#include "layers/attention/dense/dense.h"
#include "layers/attention/planned_traffic.h"

namespace longreach::dense {

// Whether cuDNN computes these heads. "longreach": never. "auto": where it takes the case, on CUDA, in a
// process that does not ask for determinism. "cudnn": always; throws ConfigError that says why it cannot.
bool takes_cudnn(const std::string& backend, const Heads& heads, const at::Tensor& cu_seqlens);

class DenseAttention : public SoftmaxAttention, public TrafficPlanner {
 public:
  DenseAttention(const DenseConfig& config, const LayerSite& site);

  AttentionOutput forward(const at::Tensor& x, const Batch& batch) override;
  std::unique_ptr<DecodeState> start_decoding(int64_t batch_size, int64_t max_tokens) const override;
  at::Tensor decode(const at::Tensor& x, DecodeState& state) override;
  double flops_per_token(int64_t seq_len) const override;
  PlannedTraffic planned_traffic(const std::shared_ptr<const ContextGroup>& context,
                                 at::ScalarType dtype) const override;

 private:
  at::Tensor attend_context(const Heads& heads, const std::shared_ptr<const ContextGroup>& context) const;

  std::string backend_;
};

}  // namespace longreach::dense
