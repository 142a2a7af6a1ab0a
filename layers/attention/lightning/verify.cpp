// Cases of lightning attention: the recurrence with given decays or the paper's, MiniMax's layer, HypeNet's,
// SRMSNorm, and a whole TransNormer language model.
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/embedding.h>

#include "layers/attention/lightning/lightning.h"
#include "layers/basic/linear.h"
#include "layers/basic/norm.h"
#include "layers/basic/rope.h"
#include "train/verify/case.h"
#include "train/verify/operators.h"

namespace longreach {
namespace {

using verify::Case;
using verify::run_recurrence;
using verify::VectorFile;

constexpr double kSrmsEps = 1e-6;

// in.s, [H] or [H, 1, 1]: decay exp(-s) a token. The authors' kernels take it as a buffer and give it no
// gradient.
void run_given_slopes(Case& run) {
  const bool buffer = run.file.note("source").find("lightning_attn/ops") != std::string::npos;
  const at::Tensor slopes = buffer ? run.constant("in.s") : run.wide_leaf("in.s");
  run_recurrence(run, slopes.flatten().neg(), 0.0);
}

void run_paper_decay(Case& run) {
  const at::Tensor decay = lightning_log_decay("paper", run.file.integer("H"), run.file.integer("layer_idx"),
                                               run.file.integer("num_layers"));
  run.produce("g_gamma", decay);
  run_recurrence(run, decay.to(run.wide()), -0.5);
}

void run_minimax_layer(Case& run) {
  const VectorFile& file = run.file;
  const at::Tensor decay = lightning_log_decay("minimax", file.integer("num_attention_heads"),
                                               file.integer("layer_idx"), file.integer("num_hidden_layers"));
  at::Tensor x = run.leaf("in.x");
  // A padded token's q, k and v are zero: what a zero input gives, as no projection has a bias.
  if (run.has("in.mask")) x = x * run.integers("in.mask").unsqueeze(-1).to(run.dtype);
  const LightningWeights weights{.in_proj = run.leaf("param.qkv_proj.weight"),
                                 .out_proj = run.leaf("param.out_proj.weight"),
                                 .output_gate = run.leaf("param.output_gate.weight"),
                                 .norm = run.leaf("param.norm.weight")};
  const LightningOptions options{
      .form = "minimax", .log_decay = decay.to(run.wide()), .implementation = run.implementation};
  const LightningOutput out = lightning_layer(x, {}, weights, options);
  run.produce("o", out.y);
  run.produce("state", out.state);
  run.produce("slope", decay.neg());
}

void run_hypenet_layer(Case& run) {
  const VectorFile& file = run.file;
  const at::Tensor x = run.leaf("in.x");
  const auto weight = [&](const char* name) { return run.leaf(text("param.", name, ".weight")); };
  const LightningWeights weights{.q_proj = weight("q_proj"),
                                 .k_proj = weight("k_proj"),
                                 .v_proj = weight("v_proj"),
                                 .q_norm = weight("q_norm"),
                                 .k_norm = weight("k_norm"),
                                 .out_proj = weight("o_proj"),
                                 .output_gate = weight("z_proj"),
                                 .norm = weight("o_norm")};
  LightningConfig config{.form = "hypenet", .scale = file.word("scale")};
  const int64_t heads = file.integer("num_attention_heads"), head_dim = file.integer("head_dim");
  const LightningOptions options{.form = config.form,
                                 .log_decay = lightning_log_decay("hypenet", heads, 0, 1).to(run.wide()),
                                 .scale = config.scale_of(head_dim),
                                 .norm_eps = file.real("rms_norm_eps"),
                                 .rotary = std::make_shared<RotaryEmbedding>(
                                     RopeConfig{.theta = file.real("rope_theta")}, head_dim, x.size(1)),
                                 .implementation = run.implementation};
  const at::Tensor positions = at::arange(x.size(1), at::kLong).unsqueeze(0).expand({x.size(0), x.size(1)});
  const LightningOutput out = lightning_layer(x, positions, weights, options);
  run.produce("o", out.y);
  run.produce("state", out.state);
}

void run_srmsnorm(Case& run) { run.produce("o", rms_norm(run.leaf("in.x"), {}, run.file.real("eps"))); }

void run_transnormer_model(Case& run) {
  const VectorFile& file = run.file;
  const int64_t layers = file.integer("n_layer"), heads = file.integer("n_head");
  const at::Tensor tokens = run.integers("in.idx"), table = run.leaf("param.transnormer.wte.weight");
  const at::Tensor positions = at::arange(tokens.size(1), at::kLong).expand_as(tokens);
  at::Tensor x = at::embedding(table, tokens);
  for (int64_t layer = 0; layer < layers; ++layer) {
    const std::string prefix = text("param.transnormer.h.", layer, ".");
    LightningWeights weights{.in_proj = run.leaf(prefix + "token_mixer.qkvu_proj.weight"),
                             .out_proj = run.leaf(prefix + "token_mixer.out_proj.weight")};
    if (run.has(prefix + "token_mixer.lrpe.theta"))
      weights.theta = run.wide_leaf(prefix + "token_mixer.lrpe.theta");
    const LightningOptions options{
        .log_decay = lightning_log_decay("alibi", heads, layer, layers).to(run.wide()),
        .implementation = run.implementation};
    x = x + lightning_layer(rms_norm(x, {}, kSrmsEps), positions, weights, options).y;
    const auto product = [&](const at::Tensor& in, const char* name) {
      return linear_map(in, run.leaf(prefix + "channel_mixer." + name));
    };
    const at::Tensor normed = rms_norm(x, {}, kSrmsEps);
    x = x + product(product(normed, "l1.weight") * product(normed, "l2.weight"), "l3.weight");
  }
  const at::Tensor logits = linear_map(rms_norm(x, {}, kSrmsEps), table);
  run.produce("logits", logits);
  if (!run.has("in.targets")) return;
  const at::Tensor wide = logits.to(run.wide()).flatten(0, 1), targets = run.integers("in.targets").flatten();
  constexpr int64_t kMean = 1;
  run.produce("loss",
              at::cross_entropy_loss(wide, targets, {}, kMean, file.integer("ignore_index")).view({1}));
}

}  // namespace

void LightningConfig::verify(Case& run) {
  const nlohmann::json& config = run.file.config();
  if (run.has("in.s")) return run_given_slopes(run);
  if (config.contains("g_gamma") && run.file.word("g_gamma") == "-(8/H*(1-l/L))*h")
    return run_paper_decay(run);
  if (run.has("param.qkv_proj.weight")) return run_minimax_layer(run);
  if (run.has("param.z_proj.weight")) return run_hypenet_layer(run);
  if (run.has("param.transnormer.wte.weight")) return run_transnormer_model(run);
  if (run.has("in.x") && config.contains("eps")) return run_srmsnorm(run);
  run.refuse("config of `lightning` is of no known kind: ", config.dump());
}

}  // namespace longreach
