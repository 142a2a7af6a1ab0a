// The module of lightning attention, shared by lightning.cpp (forward), forms.cpp, context.cpp and
// decode.cpp; not a public header.
#pragma once
#include <functional>
#include <memory>

#include "layers/attention/attention.h"
#include "layers/attention/lightning/lightning.h"
#include "layers/attention/planned_traffic.h"
#include "layers/basic/linear.h"
#include "layers/basic/norm.h"
#include "layers/basic/rope.h"

namespace longreach::lightning {

// q, k [B, T, H, Dk], v [B, T, H, D] -> o [B, T, H, D], and the state where there is one.
using Operator =
    std::function<LightningAttentionOutput(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v)>;

// Eps of the inner norms of TransNormerLLM and MiniMax, whatever the model's own.
inline constexpr double kNormEps = 1e-6;

// Where the tokens stand: what LRPE reads, and the rotation of q and k, undefined where there is none.
struct Places {
  at::Tensor positions;  // [B, T]
  Rotation rotation;
};

// lightning_layer around any operator. Throws ConfigError for a form that is none, ShapeError naming the
// parameter.
LightningOutput layer_around(const Operator& run, const at::Tensor& x, const Places& places,
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
  void register_projections();
  LightningWeights weights() const;

  LayerSite site_;
  LightningOptions options_;
  // Null where the form has none. in_proj_: qkvu_proj or qkv_proj.
  std::shared_ptr<Linear> in_proj_, q_proj_, k_proj_, v_proj_, out_proj_, output_gate_;
  std::shared_ptr<Norm> q_norm_, k_norm_, norm_;
  std::shared_ptr<Module> lrpe_;  // holds theta, as in the authors' files
};

}  // namespace longreach::lightning
