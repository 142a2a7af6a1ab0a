// Lightning attention: the two layer forms around the recurrence, and the module that holds their weights.
#include "layers/attention/lightning/lightning.h"

#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>

#include <cmath>

#include "layers/attention/lightning/lrpe.h"
#include "layers/attention/lightning/module.h"
#include "layers/basic/initialization.h"
#include "layers/ops/common/check.h"
#include "layers/ops/recurrence/recurrence.h"

namespace longreach {
namespace {

constexpr double kNormEps = 1e-6;  // of both authors, whatever the model's own eps

using lightning::Operator;

LightningAttentionOutput run_operator(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const LightningOptions& options, const at::Tensor& initial_state,
                                      const at::Tensor& cu_seqlens) {
  if (options.implementation == Implementation::reference)
    return lightning_attention_reference(q, k, v, options.log_decay, options.scale, initial_state,
                                         cu_seqlens);
  const at::Tensor log_decay = options.log_decay.to(v.device(), at::kFloat);
  const RecurrenceOutput out = recurrence(q, k, v, log_decay, initial_state, cu_seqlens,
                                          {.scale = options.scale, .chunk = options.chunk});
  return {out.o, out.final_state};
}

LightningOutput transnormer(const at::Tensor& x, const at::Tensor& positions, const LightningWeights& weights,
                            const LightningOptions& options, const Operator& run) {
  const int64_t batch = x.size(0), tokens = x.size(1), heads = options.log_decay.numel();
  const int64_t inner = weights.out_proj.weight.size(1);
  const at::Tensor qkvu = linear_map(x, weights.in_proj);
  const auto part = [&](int64_t first) {
    return qkvu.narrow(-1, first * inner, inner).view({batch, tokens, heads, inner / heads});
  };
  at::Tensor q = at::silu(part(0)), k = at::silu(part(1));
  if (weights.theta.defined()) std::tie(q, k) = lightning::lrpe(q, k, positions, weights.theta);
  const auto [o, state] = run(q, k, part(2));
  const at::Tensor normed = rms_norm(o.reshape({batch, tokens, inner}), {}, kNormEps);
  return {linear_map(normed * qkvu.narrow(-1, 3 * inner, inner), weights.out_proj), state};
}

LightningOutput minimax(const at::Tensor& x, const at::Tensor& positions, const LightningWeights& weights,
                        const LightningOptions& options, const Operator& run) {
  const int64_t batch = x.size(0), tokens = x.size(1), heads = options.log_decay.numel();
  const int64_t inner = weights.out_proj.weight.size(1), size = inner / heads;
  const at::Tensor qkv = at::silu(linear_map(x, weights.in_proj)).view({batch, tokens, heads, 3 * size});
  at::Tensor q = qkv.narrow(-1, 0, size), k = qkv.narrow(-1, size, size);
  if (weights.theta.defined()) std::tie(q, k) = lightning::lrpe(q, k, positions, weights.theta);
  const auto [o, state] = run(q, k, qkv.narrow(-1, 2 * size, size));
  const at::Tensor normed = rms_norm(o.reshape({batch, tokens, inner}), weights.norm, kNormEps);
  return {linear_map(at::sigmoid(linear_map(x, weights.output_gate)) * normed, weights.out_proj), state};
}

}  // namespace

void LightningConfig::fields(FieldVisitor& visit) {
  visit.field("form", form,
              {.help = "layer around the operator: transnormer (qkvu, SRMSNorm, u gate) or minimax (qkv, "
                       "RMSNorm, sigmoid gate)",
               .allowed = one_of({"transnormer", "minimax"})});
  visit.field(
      "decay", decay,
      {.help =
           "decay of head h in layer l: alibi (TransNormer's code), paper (-8/H (1-l/L) h, scores scaled by "
           "head_dim^-1/2), minimax, none, or auto (that of the form)",
       .allowed = one_of({"auto", "alibi", "paper", "minimax", "none"})});
  visit.field("lrpe", lrpe,
              {.help = "LRPE positions on q and k: on, off, or auto (transnormer: every layer but the first; "
                       "minimax: off)",
               .allowed = one_of({"auto", "on", "off"})});
  visit.field(
      "chunk", chunk,
      {.help = "tokens a chunk: 16, 32, 64 or 128; speed, not the result", .allowed = between(16, 128)});
  if (chunk != 16 && chunk != 32 && chunk != 64 && chunk != 128)
    visit.reject("chunk", text("found ", chunk, ", expected 16, 32, 64 or 128"));
}

bool LightningConfig::uses_lrpe(int64_t layer) const {
  return lrpe == "on" || (lrpe == "auto" && form == "transnormer" && layer > 0);
}

void LightningConfig::validate(const LayerSite& site) const {
  check<ConfigError>(!uses_lrpe(site.layer) || site.head_dim <= 128,
                     "lrpe doubles model.head_dim = ", site.head_dim,
                     ", and keys have at most 256 features; set lrpe = \"off\"");
}

LightningOutput lightning_layer(const at::Tensor& x, const at::Tensor& positions,
                                const LightningWeights& weights, const LightningOptions& options,
                                const at::Tensor& initial_state, const at::Tensor& cu_seqlens) {
  const auto run = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return run_operator(q, k, v, options, initial_state, cu_seqlens);
  };
  return lightning::layer_around(run, x, positions, weights, options);
}

namespace lightning {

LightningOutput layer_around(const Operator& run, const at::Tensor& x, const at::Tensor& positions,
                             const LightningWeights& weights, const LightningOptions& options) {
  const int64_t heads = options.log_decay.numel(), inner = weights.out_proj.weight.size(1),
                hidden = weights.out_proj.weight.size(0);
  const bool is_minimax = options.form == "minimax";
  check<ConfigError>(is_minimax || options.form == "transnormer", "form = \"", options.form,
                     "\": expected transnormer or minimax");
  check<ShapeError>(heads > 0 && inner % heads == 0, "out_proj: ", inner, " columns are no multiple of ",
                    heads, " heads");
  expect_shape(x, "x", {-1, -1, hidden});
  expect_shape(weights.in_proj.weight, is_minimax ? "qkv_proj" : "qkvu_proj",
               {(is_minimax ? 3 : 4) * inner, hidden});
  if (weights.theta.defined()) {
    expect_shape(weights.theta, "lrpe.theta", {heads, 1, inner / heads});
    expect_shape(positions, "positions", {x.size(0), x.size(1)});
  }
  if (!is_minimax) return transnormer(x, positions, weights, options, run);
  expect_shape(weights.norm, "norm", {inner});
  expect_shape(weights.output_gate.weight, "output_gate", {inner, hidden});
  return minimax(x, positions, weights, options, run);
}

LightningAttention::LightningAttention(const LightningConfig& config, const LayerSite& site) : site_(site) {
  const bool is_minimax = config.form == "minimax";
  const std::string decay = config.decay != "auto" ? config.decay : is_minimax ? "minimax" : "alibi";
  options_ = {.form = config.form,
              .log_decay = lightning_log_decay(decay, site.num_heads, site.layer, site.num_layers),
              .scale = decay == "paper" ? 1.0 / std::sqrt(static_cast<double>(site.head_dim)) : 1.0,
              .chunk = config.chunk,
              .implementation = site.implementation};
  const int64_t inner = site.num_heads * site.head_dim;
  const auto make = [&](const char* name, int64_t in, int64_t out, double std) {
    return register_module(name, std::make_shared<Linear>(in, out, std, derive_seed(site.seed, name)));
  };
  in_proj_ = is_minimax ? make("qkv_proj", site.hidden_size, 3 * inner, site.initializer_range)
                        : make("qkvu_proj", site.hidden_size, 4 * inner, site.initializer_range);
  out_proj_ = make("out_proj", inner, site.hidden_size, site.residual_std());
  if (is_minimax) {
    output_gate_ = make("output_gate", site.hidden_size, inner, site.initializer_range);
    norm_ = register_module("norm", std::make_shared<Norm>("rmsnorm", inner, kNormEps));
  }
  if (config.uses_lrpe(site.layer)) {
    lrpe_ = register_module("lrpe", std::make_shared<Module>());
    lrpe_->register_parameter("theta", lrpe_theta(site.num_heads, site.head_dim), WeightDecay::no);
  }
}

LightningWeights LightningAttention::weights() const {
  LightningWeights weights{.in_proj = in_proj_->projection(), .out_proj = out_proj_->projection()};
  if (output_gate_) weights.output_gate = output_gate_->projection();
  if (norm_) weights.norm = norm_->weight();
  if (lrpe_) weights.theta = lrpe_->named_parameters(false)["theta"];
  return weights;
}

AttentionOutput LightningAttention::forward(const at::Tensor& x, const Batch& batch) {
  if (batch.context) return forward_pieces(x, batch);
  return {lightning_layer(x, batch.positions, weights(), options_, {}, batch.cu_seqlens).y, {}};
}

double LightningAttention::flops_per_token(int64_t) const {
  // The state takes k v^T and gives q S: two products of Dk x D a head and token.
  const int64_t key_features = site_.head_dim * (lrpe_ ? 2 : 1);
  const double state = 4.0 * static_cast<double>(site_.num_heads * key_features * site_.head_dim);
  return in_proj_->flops() + out_proj_->flops() + (output_gate_ ? output_gate_->flops() : 0.0) + state;
}

}  // namespace lightning

std::shared_ptr<Attention> make_attention(const LightningConfig& config, const LayerSite& site) {
  return std::make_shared<lightning::LightningAttention>(config, site);
}

}  // namespace longreach
