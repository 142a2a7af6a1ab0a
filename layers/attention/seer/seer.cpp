// SeerAttention: a dense attention's projections, a gate, block attention over the blocks it chooses.
#include "layers/attention/seer/seer.h"

#include <ATen/ops/ones.h>

#include <algorithm>

#include "layers/attention/common/context/places.h"
#include "layers/attention/seer/module.h"
#include "layers/basic/initialization.h"

namespace longreach {
namespace seer {
namespace {

// A parameter called `weight`, as the authors' little modules have it.
class Weight : public Module {
 public:
  Weight(const at::Tensor& initial, WeightDecay decay) {
    value = register_parameter("weight", initial, decay);
  }
  at::Tensor value;
};

}  // namespace

AttnGate::AttnGate(const SeerGateForm& form, const LayerSite& site) : form_(form) {
  const std::string prefix = form.decode ? "attngate_linear_" : "mask_linear_";
  const auto add = [&](const std::string& name, const at::Tensor& initial, WeightDecay decay) {
    return register_module(name, std::make_shared<Weight>(initial, decay))->value;
  };
  const auto drawn = [&](const std::string& name, const std::vector<int64_t>& shape) {
    return add(name, normal_parameter(shape, site.initializer_range, derive_seed(site.seed, name)),
               WeightDecay::yes);
  };
  if (form.linear_q) weights_.q = drawn(prefix + "q", form.q_shape());
  weights_.k = drawn(prefix + "k", form.k_shape());
  if (!form.norm) return;
  weights_.q_norm = add("attngate_qnorm", at::ones({form.hidden}, at::kFloat), WeightDecay::no);
  weights_.k_norm = add("attngate_knorm", at::ones({form.hidden}, at::kFloat), WeightDecay::no);
}

double AttnGate::flops() const {
  const double rows = static_cast<double>(form_.block_size),
               q = form_.linear_q ? 2.0 * static_cast<double>(weights_.q.numel()) : 0.0;
  return (form_.decode ? q : q / rows) + 2.0 * static_cast<double>(weights_.k.numel()) / rows;
}

SeerAttention::SeerAttention(const SeerConfig& config, const LayerSite& site)
    : SoftmaxAttention(site, config.rope),
      config_(config),
      form_(seer_gate_form(config, site)),
      rule_(seer_rule(config)) {
  config.validate(site);
  gate_ = register_module("attn_gate", std::make_shared<AttnGate>(form_, site));
  if (!config.gate_rope) return;
  gate_rotary_ =
      site.rotary && form_.hidden == site.head_dim
          ? site.rotary
          : std::make_shared<RotaryEmbedding>(site.rope, form_.hidden, site.max_position_embeddings);
}

AttentionOutput SeerAttention::forward(const at::Tensor& x, const Batch& batch) {
  const Heads plain = split_heads(x), heads = rotated(plain, batch);
  if (batch.context) return forward_context(plain, heads, batch);
  if (config_.mode == "dense") return dense(heads, batch);
  return config_.mode == "distill" && is_training() ? distilling(plain, heads, batch)
                                                    : sparse(plain, heads, batch);
}

AttentionOutput SeerAttention::dense(const Heads& heads, const Batch& batch) const {
  const IntervalMask mask{.cu_seqlens_q = batch.cu_seqlens, .cu_seqlens_k = batch.cu_seqlens};
  return {merge(attend(heads, mask, site_.implementation)), {}};
}

// The gate reads q and k, but does not teach them.
Features SeerAttention::features(const Heads& plain, const at::Tensor& positions,
                                 const SeerPlaces& places) const {
  return {seer_gate_queries(form_, gate_->weights(), plain.q.detach(), gate_rotary_.get(), positions, places,
                            site_.implementation),
          seer_gate_keys(form_, gate_->weights(), plain.k.detach(), gate_rotary_.get(), places,
                         site_.implementation)};
}

at::Tensor SeerAttention::gate_loss(const SeerGateForm& form, const Features& gate,
                                    const at::Tensor& block_max, const at::Tensor& indices,
                                    const SeerPlaces& places) const {
  const at::Tensor target = seer_gate_target(form, block_max, indices, places);
  return seer_gate_loss(form, gate.q, gate.k, target, indices, places, config_.loss_slice_ratio);
}

AttentionOutput SeerAttention::distilling(const Heads& plain, const Heads& heads, const Batch& batch) {
  const SeerPlaces places = seer_places(heads.q, batch.cu_seqlens);
  const Features gate = features(plain, batch.positions, places);
  AttentionOutput out = dense(heads, batch);
  out.losses.emplace_back("gate",
                          seer_distillation_loss(form_, heads.q, heads.k, heads.v, gate.q, gate.k, places,
                                                 config_.loss_slice_ratio, site_.implementation));
  return out;
}

AttentionOutput SeerAttention::sparse(const Heads& plain, const Heads& heads, const Batch& batch) {
  const SeerPlaces places = seer_places(heads.q, batch.cu_seqlens);
  const Features gate = features(plain, batch.positions, places);
  const at::Tensor indices = trial_ ? trial_blocks(gate, heads, places)
                                    : seer_choose(form_, rule_, gate.q, gate.k, places, site_.implementation);
  const bool learning = config_.mode == "sparse" && config_.gate_loss && is_training();
  const SeerAttended attended =
      seer_attend(form_, heads.q, heads.k, heads.v, indices, places, learning, site_.implementation);
  if (!is_training()) count(indices, places);
  if (maps_) leave_maps(gate, heads, indices, places);
  AttentionOutput out{merge(attended.o), {}};
  if (learning) out.losses.emplace_back("gate", gate_loss(form_, gate, attended.block_max, indices, places));
  return out;
}

std::map<std::string, double> SeerAttention::loss_counts(const std::vector<Batch>& step) const {
  SeerLossCount count;
  for (const Batch& batch : step)
    count.add(form_,
              batch.context ? seer_places(batch.context->layout().total(), whole_cu_seqlens(*batch.context))
                            : seer_places(batch.positions.size(1), batch.cu_seqlens),
              batch.positions.size(0));
  return {{"gate", count.divisor()}};
}

double SeerAttention::flops_per_token(int64_t seq_len) const {
  const auto tokens = static_cast<double>(std::max<int64_t>(seq_len, 1)), all = (tokens + 1.0) / 2.0;
  if (config_.mode == "dense") return flops(all);
  const auto block = static_cast<double>(form_.block_size);
  double keys = all;  // of a threshold nothing is known beforehand
  if (config_.mode == "sparse" && rule_.top_k > 0) {
    const double most = std::min(tokens, (static_cast<double>(rule_.top_k) + 0.5) * block);
    keys = (most * (most + 1.0) / 2.0 + (tokens - most) * most) / tokens;
  }
  if (config_.mode == "sparse" && rule_.density > 0) keys = rule_.density * all;
  const double rows = form_.decode ? 1.0 : 1.0 / block;  // of the map, a token
  return flops(keys) + gate_->flops() +
         rows * static_cast<double>(2 * form_.map_heads() * form_.hidden) * all / block;
}

}  // namespace seer

std::shared_ptr<Attention> make_attention(const SeerConfig& config, const LayerSite& site) {
  return std::make_shared<seer::SeerAttention>(config, site);
}

}  // namespace longreach
