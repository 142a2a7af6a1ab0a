// Lightning attention: the options, the layer as a function, and the module that holds its weights.
#include "layers/attention/lightning/lightning.h"

#include <cmath>

#include "core/error.h"
#include "layers/attention/lightning/lrpe.h"
#include "layers/attention/lightning/module.h"
#include "layers/basic/initialization.h"
#include "layers/ops/recurrence/recurrence.h"

namespace longreach {
namespace {

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

std::string decay_of(const LightningConfig& config) {
  if (config.decay != "auto") return config.decay;
  return config.form == "transnormer" ? "alibi" : config.form;
}

}  // namespace

void LightningConfig::fields(FieldVisitor& visit) {
  visit.field(
      "form", form,
      {.help = "layer around the operator: transnormer (qkvu, SRMSNorm, u gate), minimax (qkv, RMSNorm, "
               "sigmoid gate) or hypenet (q and k with norms and rotary embedding, RMSNorm, sigmoid "
               "gate; MiniCPM-SALA's)",
       .allowed = one_of({"transnormer", "minimax", "hypenet"})});
  visit.field(
      "decay", decay,
      {.help =
           "decay of head h in layer l: alibi (TransNormer's code), paper (-8/H (1-l/L) h, scores scaled by "
           "head_dim^-1/2), minimax, hypenet (ALiBi slopes alike in every layer), none, or auto (that of the "
           "form)",
       .allowed = one_of({"auto", "alibi", "paper", "minimax", "hypenet", "none"})});
  visit.field("scale", scale,
              {.help = "of scores: 1/sqrt(d), 1/d, none, or auto (hypenet and decay = \"paper\": 1/sqrt(d); "
                       "else none); d: head_dim",
               .allowed = one_of({"auto", "1/sqrt(d)", "1/d", "none"})});
  visit.field("rope", rope, {.help = "rotary embedding on q and k of form = \"hypenet\"; others have none"});
  visit.field("lrpe", lrpe,
              {.help = "LRPE positions on q and k: on, off, or auto (transnormer: every layer but the first; "
                       "others: off)",
               .allowed = one_of({"auto", "on", "off"})});
  if (lrpe == "on" && form == "hypenet")
    visit.reject("lrpe", "form = \"hypenet\" has rotary positions (rope); expected auto or off");
  visit.field(
      "chunk", chunk,
      {.help = "tokens a chunk: 16, 32, 64 or 128; speed, not the result", .allowed = between(16, 128)});
  if (chunk != 16 && chunk != 32 && chunk != 64 && chunk != 128)
    visit.reject("chunk", text("found ", chunk, ", expected 16, 32, 64 or 128"));
}

bool LightningConfig::uses_lrpe(int64_t layer) const {
  return (lrpe == "on" && form != "hypenet") || (lrpe == "auto" && form == "transnormer" && layer > 0);
}

double LightningConfig::scale_of(int64_t head_dim) const {
  const auto d = static_cast<double>(head_dim);
  if (scale == "1/d") return 1.0 / d;
  const bool root = scale == "1/sqrt(d)" || (scale == "auto" && (form == "hypenet" || decay == "paper"));
  return root ? 1.0 / std::sqrt(d) : 1.0;
}

void LightningConfig::validate(const LayerSite& site) const {
  check<ConfigError>(!uses_lrpe(site.layer) || site.head_dim <= 128,
                     "lrpe doubles model.head_dim = ", site.head_dim,
                     ", and keys have at most 256 features; set lrpe = \"off\"");
}

LightningOutput lightning_layer(const at::Tensor& x, const at::Tensor& positions,
                                const LightningWeights& weights, const LightningOptions& options,
                                const at::Tensor& initial_state, const at::Tensor& cu_seqlens,
                                int64_t length) {
  const auto run = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return run_operator(q, k, v, options, initial_state, cu_seqlens);
  };
  lightning::Places places{positions, {}};
  if (options.rotary) places.rotation = options.rotary->at(positions, x.scalar_type(), length, x.device());
  return lightning::layer_around(run, x, places, weights, options);
}

namespace lightning {

LightningAttention::LightningAttention(const LightningConfig& config, const LayerSite& site) : site_(site) {
  options_ = {.form = config.form,
              .log_decay = lightning_log_decay(decay_of(config), site.num_heads, site.layer, site.num_layers),
              .scale = config.scale_of(site.head_dim),
              .norm_eps = site.norm_eps,
              .chunk = config.chunk,
              .implementation = site.implementation};
  if (config.turns())
    options_.rotary = site.rotary ? site.rotary
                                  : std::make_shared<RotaryEmbedding>(site.rope, site.head_dim,
                                                                      site.max_position_embeddings);
  register_projections();
  if (config.uses_lrpe(site.layer)) {
    lrpe_ = register_module("lrpe", std::make_shared<Module>());
    lrpe_->register_parameter("theta", lrpe_theta(site.num_heads, site.head_dim), WeightDecay::no);
  }
}

void LightningAttention::register_projections() {
  const int64_t inner = site_.num_heads * site_.head_dim;
  const auto make = [&](const char* name, int64_t in, int64_t out, double std) {
    return register_module(name, std::make_shared<Linear>(in, out, std, derive_seed(site_.seed, name)));
  };
  const auto read = [&](const char* name, int64_t rows) {
    return make(name, site_.hidden_size, rows, site_.initializer_range);
  };
  const auto norm = [&](const char* name, int64_t size, double eps) {
    return register_module(name, std::make_shared<Norm>("rmsnorm", size, eps));
  };
  if (options_.form == "hypenet") {
    q_proj_ = read("q_proj", inner);
    k_proj_ = read("k_proj", inner);
    v_proj_ = read("v_proj", inner);
    out_proj_ = make("o_proj", inner, site_.hidden_size, site_.residual_std());
    output_gate_ = read("z_proj", inner);
    q_norm_ = norm("q_norm", site_.head_dim, site_.norm_eps);
    k_norm_ = norm("k_norm", site_.head_dim, site_.norm_eps);
    norm_ = norm("o_norm", inner, site_.norm_eps);
    return;
  }
  const bool is_minimax = options_.form == "minimax";
  in_proj_ = is_minimax ? read("qkv_proj", 3 * inner) : read("qkvu_proj", 4 * inner);
  out_proj_ = make("out_proj", inner, site_.hidden_size, site_.residual_std());
  if (!is_minimax) return;
  output_gate_ = read("output_gate", inner);
  norm_ = norm("norm", inner, kNormEps);
}

LightningWeights LightningAttention::weights() const {
  LightningWeights weights{.out_proj = out_proj_->projection()};
  if (in_proj_) weights.in_proj = in_proj_->projection();
  if (q_proj_) {
    weights.q_proj = q_proj_->projection();
    weights.k_proj = k_proj_->projection();
    weights.v_proj = v_proj_->projection();
    weights.q_norm = q_norm_->weight();
    weights.k_norm = k_norm_->weight();
  }
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
  double projections = 0.0;
  for (const auto& linear : {in_proj_, q_proj_, k_proj_, v_proj_, out_proj_, output_gate_})
    if (linear) projections += linear->flops();
  return projections + state;
}

}  // namespace lightning

std::shared_ptr<Attention> make_attention(const LightningConfig& config, const LayerSite& site) {
  return std::make_shared<lightning::LightningAttention>(config, site);
}

}  // namespace longreach
