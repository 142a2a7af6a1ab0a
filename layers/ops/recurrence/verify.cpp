// Cases of the recurrence: retention and simple gated linear attention.
#include <ATen/ops/tensor.h>

#include <cmath>

#include "layers/ops/recurrence/recurrence.h"
#include "train/verify/case.h"
#include "train/verify/operators.h"

namespace longreach::verify {

void run_recurrence(Case& run, const at::Tensor& log_decay, double default_scale_power) {
  const at::Tensor q = run.sequence("in.q"), k = run.sequence("in.k"), v = run.sequence("in.v");
  at::Tensor state, cu_seqlens;
  if (run.has("in.initial_state")) state = run.wide_leaf("in.initial_state");
  if (run.has("in.cu_seqlens")) cu_seqlens = run.integers("in.cu_seqlens").to(at::kInt);
  const double otherwise = std::pow(static_cast<double>(q.size(-1)), default_scale_power);
  const RecurrenceOptions options{.scale = run.file.scale(q.size(-1), otherwise)};
  const RecurrenceOutput out =
      recurrence_by(run.implementation, q, k, v, log_decay, state, cu_seqlens, options);
  run.produce_sequence("o", out.o);
  run.produce("final_state", out.final_state);
}

void verify_retention(Case& run) {
  if (run.file.word("decay") != "1-2^(-5-h)")
    run.refuse("config of `retention`: decay `", run.file.word("decay"), "` is unknown");
  std::vector<double> decays;
  for (int64_t head = 0; head < run.file.integer("H"); ++head)
    decays.push_back(std::log1p(-std::exp2(-5.0 - static_cast<double>(head))));
  run_recurrence(run, at::tensor(decays, at::kDouble).to(run.wide()), -0.5);
}

void verify_simple_gla(Case& run) {
  const at::Tensor decay = run.wide_leaf("in.g");
  const auto axes = run.file.axes("g");
  run_recurrence(run, axes.size() == 3 && axes[1].starts_with("H") ? decay.transpose(1, 2) : decay, -0.5);
}

}  // namespace longreach::verify
