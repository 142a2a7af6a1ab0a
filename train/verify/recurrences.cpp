// Cases of the recurrence operator: lightning with given or computed decays, retention, simple gated linear
// attention.
#include <ATen/ops/tensor.h>

#include <cmath>

#include "layers/attention/lightning/lightning.h"
#include "layers/ops/recurrence/recurrence.h"
#include "train/verify/runners.h"

namespace longreach::verify {
namespace {

// Runs the operator on in.q, in.k, in.v and the optional in.initial_state and in.cu_seqlens.
void run_recurrence(Case& run, const at::Tensor& log_decay, double default_scale_power) {
  const at::Tensor q = run.sequence("in.q"), k = run.sequence("in.k"), v = run.sequence("in.v");
  at::Tensor state, cu_seqlens;
  if (run.has("in.initial_state")) state = run.wide_leaf("in.initial_state");
  if (run.has("in.cu_seqlens")) cu_seqlens = run.integers("in.cu_seqlens").to(at::kInt);
  const double otherwise = std::pow(static_cast<double>(q.size(-1)), default_scale_power);
  const RecurrenceOptions options{.scale = run.file.scale(q.size(-1), otherwise)};
  const RecurrenceOutput out =
      (run.fused() ? recurrence : recurrence_reference)(q, k, v, log_decay, state, cu_seqlens, options);
  run.produce_sequence("o", out.o);
  run.produce("final_state", out.final_state);
}

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

}  // namespace

void run_lightning(Case& run) {
  const nlohmann::json& config = run.file.config();
  if (run.has("in.s")) return run_given_slopes(run);
  if (config.contains("g_gamma") && run.file.word("g_gamma") == "-(8/H*(1-l/L))*h")
    return run_paper_decay(run);
  if (run.has("param.qkv_proj.weight")) return run_minimax_layer(run);
  if (run.has("param.transnormer.wte.weight")) return run_transnormer_model(run);
  if (run.has("in.x") && config.contains("eps")) return run_srmsnorm(run);
  throw UnknownCase(
      one_line(text(run.file.path(), ": config of `lightning` is of no known kind: ", config.dump())));
}

void run_retention(Case& run) {
  if (run.file.word("decay") != "1-2^(-5-h)")
    throw UnknownCase(one_line(
        text(run.file.path(), ": config of `retention`: decay `", run.file.word("decay"), "` is unknown")));
  std::vector<double> decays;
  for (int64_t head = 0; head < run.file.integer("H"); ++head)
    decays.push_back(std::log1p(-std::exp2(-5.0 - static_cast<double>(head))));
  run_recurrence(run, at::tensor(decays, at::kDouble).to(run.wide()), -0.5);
}

void run_simple_gla(Case& run) {
  const at::Tensor decay = run.wide_leaf("in.g");
  const auto axes = run.file.axes("g");
  run_recurrence(run, axes.size() == 3 && axes[1].starts_with("H") ? decay.transpose(1, 2) : decay, -0.5);
}

}  // namespace longreach::verify
