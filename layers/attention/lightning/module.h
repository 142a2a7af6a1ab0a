// The module of lightning attention, shared by lightning.cpp (forward), context.cpp and decode.cpp; not a
// public header.
#pragma once
#include <functional>
#include <memory>

#include "layers/attention/attention.h"
#include "layers/attention/lightning/lightning.h"
#include "layers/attention/planned_traffic.h"
#include "layers/basic/linear.h"
#include "layers/basic/norm.h"

namespace longreach::lightning {

// q, k [B, T, H, Dk], v [B, T, H, D] -> o [B, T, H, D], and the state where there is one.
using Operator =
    std::function<LightningAttentionOutput(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v)>;

// lightning_layer around any operator.
LightningOutput layer_around(const Operator& run, const at::Tensor& x, const at::Tensor& positions,
                             const LightningWeights& weights, const LightningOptions& options);

class LightningAttention : public Attention, public TrafficPlanner {
 public:
  LightningAttention(const LightningConfig& config, const LayerSite& site);

  AttentionOutput forward(const at::Tensor& x, const Batch& batch) override;
  std::unique_ptr<DecodeState> start_decoding(int64_t batch_size, int64_t max_tokens) const override;
  at::Tensor decode(const at::Tensor& x, DecodeState& state) override;
  double flops_per_token(int64_t seq_len) const override;
  PlannedTraffic planned_traffic(const std::shared_ptr<const ContextGroup>& context,
                                 at::ScalarType dtype) const override;

 private:
  AttentionOutput forward_pieces(const at::Tensor& x, const Batch& batch) const;
  LightningWeights weights() const;

  LayerSite site_;
  LightningOptions options_;
  std::shared_ptr<Linear> in_proj_, out_proj_, output_gate_;  // in_proj_: qkvu_proj or qkv_proj
  std::shared_ptr<Norm> norm_;
  std::shared_ptr<Module> lrpe_;  // holds theta, as in the authors' files
};

}  // namespace longreach::lightning
