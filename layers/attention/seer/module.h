// The module of SeerAttention, shared by seer.cpp (forward), context.cpp, trial.cpp and decode.cpp; not a
// public header.
#pragma once
#include "layers/attention/common/softmax_attention.h"
#include "layers/attention/common/taught_gates.h"
#include "layers/attention/planned_traffic.h"
#include "layers/attention/seer/gate.h"
#include "layers/attention/seer/seer.h"

namespace longreach::seer {

// The gate's parameters under the authors' names: mask_linear_{q,k}.weight (prefill form),
// attngate_linear_{q,k}.weight and attngate_{q,k}norm.weight (decode form).
class AttnGate : public torch::nn::Module {
 public:
  AttnGate(const SeerGateForm& form, const LayerSite& site);
  const SeerGateWeights& weights() const { return weights_; }
  double flops() const;  // of its projections, a token

 private:
  SeerGateForm form_;
  SeerGateWeights weights_;
};

class ContextGate;  // context.cpp

// What the gate makes of a batch.
struct Features {
  at::Tensor q, k;
};

class SeerAttention : public SoftmaxAttention, public GatedLayer, public TrafficPlanner {
 public:
  SeerAttention(const SeerConfig& config, const LayerSite& site);

  AttentionOutput forward(const at::Tensor& x, const Batch& batch) override;
  std::map<std::string, double> loss_counts(const std::vector<Batch>& step) const override;
  std::unique_ptr<DecodeState> start_decoding(int64_t batch_size, int64_t max_tokens) const override;
  at::Tensor decode(const at::Tensor& x, DecodeState& state) override;
  double flops_per_token(int64_t seq_len) const override;
  PlannedTraffic planned_traffic(const std::shared_ptr<const ContextGroup>& context,
                                 at::ScalarType dtype) const override;

  void set_trial(const std::optional<GateTrial>& trial) override { trial_ = trial; }
  GateCount take_count() override;
  void record_maps(GateMaps* maps) override { maps_ = maps; }
  int64_t layer() const override { return site_.layer; }

 private:
  AttentionOutput dense(const Heads& heads, const Batch& batch) const;
  AttentionOutput distilling(const Heads& plain, const Heads& heads, const Batch& batch);
  AttentionOutput sparse(const Heads& plain, const Heads& heads, const Batch& batch);
  // One sequence over several ranks, context.cpp.
  AttentionOutput forward_context(const Heads& plain, const Heads& heads, const Batch& batch);
  at::Tensor context_distillation(const ContextGate& gate, const Heads& heads) const;
  AttentionOutput context_sparse(const ContextGate& gate, const Heads& heads, bool learning) const;
  Features features(const Heads& plain, const at::Tensor& positions, const SeerPlaces& places) const;
  at::Tensor gate_loss(const SeerGateForm& form, const Features& gate, const at::Tensor& block_max,
                       const at::Tensor& indices, const SeerPlaces& places) const;
  at::Tensor trial_blocks(const Features& gate, const Heads& heads, const SeerPlaces& places) const;
  at::Tensor true_maxima(const Heads& heads, const SeerPlaces& places) const;
  void count(const at::Tensor& indices, const SeerPlaces& places);
  void leave_maps(const Features& gate, const Heads& heads, const at::Tensor& indices,
                  const SeerPlaces& places);

  const SeerConfig config_;
  const SeerGateForm form_;
  const SeerRule rule_;
  std::shared_ptr<AttnGate> gate_;
  std::shared_ptr<RotaryEmbedding> gate_rotary_;
  std::optional<GateTrial> trial_;
  GateCount count_;
  GateMaps* maps_ = nullptr;
};

}  // namespace longreach::seer
