// The module of lightning attention, shared by lightning.cpp (forward) and decode.cpp; not a public header.
#pragma once
#include <memory>

#include "layers/attention/attention.h"
#include "layers/attention/lightning/lightning.h"
#include "layers/basic/linear.h"
#include "layers/basic/norm.h"

namespace longreach::lightning {

class LightningAttention : public Attention {
 public:
  LightningAttention(const LightningConfig& config, const LayerSite& site);

  AttentionOutput forward(const at::Tensor& x, const Batch& batch) override;
  std::unique_ptr<DecodeState> start_decoding(int64_t batch_size, int64_t max_tokens) const override;
  at::Tensor decode(const at::Tensor& x, DecodeState& state) override;
  double flops_per_token(int64_t seq_len) const override;

 private:
  LightningWeights weights() const;

  LayerSite site_;
  LightningOptions options_;
  std::shared_ptr<Linear> in_proj_, out_proj_, output_gate_;  // in_proj_: qkvu_proj or qkv_proj
  std::shared_ptr<Norm> norm_;
  std::shared_ptr<Module> lrpe_;  // holds theta, as in the authors' files
};

}  // namespace longreach::lightning
