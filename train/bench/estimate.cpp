#include "train/bench/estimate.h"

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "distributed/absent_rank.h"
#include "layers/attention/planned_traffic.h"
#include "train/model_input.h"
#include "train/run_size.h"

namespace longreach::bench {
namespace {

constexpr double kBackwardOfStep = 2.0 / 3.0;

// Of one micro-batch.
struct SharedRow {
  double imbalance = 1;
  double bytes = 0;  // of the rank that sends most
};

double bytes_of(const PlannedTraffic& planned, int64_t forwards) {
  double bytes = 0;
  for (const auto& [label, sent] : planned.forward) bytes += static_cast<double>(sent * forwards);
  for (const auto& [label, sent] : planned.backward) bytes += static_cast<double>(sent);
  return bytes;
}

SharedRow shared_row(const RunConfig& config, int64_t ranks) {
  if (ranks == 1) return {};
  const std::shared_ptr<Transformer> model = model_of_shapes(config);
  const ContextPlan plan = context_plan(config, model, {});
  std::vector<int32_t> bounds{0};
  for (int64_t row = 0; row < config.training.batch_size; ++row)
    bounds.push_back(static_cast<int32_t>(bounds.back() + config.training.seq_len));
  const SequenceLayout layout(bounds, static_cast<int>(ranks), plan.grain, plan.balance, plan.cost);
  SharedRow row{.imbalance = layout.imbalance(plan.cost)};
  const auto dtype = config.training.mixed_precision_param == "bfloat16" ? at::kBFloat16 : at::kFloat;
  for (const int rank : ranks_to_ask(static_cast<int>(ranks))) {
    const Group group = absent_rank(rank, static_cast<int>(ranks));
    const auto context =
        std::make_shared<const ContextGroup>(group, layout, plan.method, head_groups(group, plan.method));
    row.bytes = std::max(row.bytes, bytes_of(planned_traffic(*model, context, dtype),
                                             config.activation_checkpoint == "full" ? 2 : 1));
  }
  return row;
}

}  // namespace

Estimate estimate_step(const RunConfig& config, const ParallelDegrees& degrees, const AssumedDevice& device) {
  const RunSize size = size_of_run(config, degrees);
  const SharedRow row = shared_row(config, degrees.context);
  const double operations = 1e12 * device.tflops, bandwidth = 1e9 * device.gigabytes,
               micro_batches = size.tokens_per_step /
                               static_cast<double>(config.training.batch_size * config.training.seq_len *
                                                   degrees.replicate * degrees.shard);
  Estimate estimate{.ranks = size.ranks, .memory = size.total()};
  const double all = size.flops_per_token * size.tokens_per_step;
  estimate.compute_seconds = row.imbalance * all / static_cast<double>(size.ranks) / operations;
  estimate.shared_row_seconds = micro_batches * row.bytes / bandwidth;
  for (const auto& [label, bytes] : size.sent) {
    const double hidden = label == "gradients" ? kBackwardOfStep * estimate.compute_seconds : 0;
    estimate.state_seconds += std::max(0.0, bytes / bandwidth - hidden);
  }
  estimate.seconds = estimate.compute_seconds + estimate.shared_row_seconds + estimate.state_seconds;
  estimate.tokens_per_second = size.tokens_per_step / estimate.seconds;
  estimate.ratio = all / operations / estimate.seconds;
  return estimate;
}

}  // namespace longreach::bench
