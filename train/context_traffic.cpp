#include "train/context_traffic.h"

#include "distributed/absent_rank.h"
#include "layers/attention/planned_traffic.h"
#include "train/ranks.h"
#include "train/step_data.h"

namespace longreach {
namespace {

void add(std::map<std::string, int64_t>& all, const std::map<std::string, int64_t>& more, int64_t times) {
  for (const auto& [label, bytes] : more) all[label] += times * bytes;
}

}  // namespace

std::vector<std::map<std::string, int64_t>> context_traffic(const RunConfig& config,
                                                            const std::shared_ptr<Transformer>& model,
                                                            const data::TrainLoader& loader,
                                                            const ParallelDegrees& degrees) {
  const auto data_ranks = static_cast<int>(degrees.replicate * degrees.shard);
  const StepPlan plan = step_plan(config.training, absent_rank(0, data_ranks));
  const at::ScalarType dtype =
      config.training.mixed_precision_param == "bfloat16" ? at::kBFloat16 : at::kFloat;
  const int64_t forwards = config.activation_checkpoint == "full" ? 2 : 1;
  std::vector<std::map<std::string, int64_t>> sent;
  for (int64_t rank = 0; rank < degrees.context; ++rank) {
    const Group group = absent_rank(static_cast<int>(rank), static_cast<int>(degrees.context));
    const Mesh mesh{.context = group, .heads = head_groups(group, context_method(config))};
    auto& own = sent.emplace_back();
    for (const ModelInput& micro :
         load_step(loader, config.training, plan, context_plan(config, model, mesh), 0).micro_batches) {
      const PlannedTraffic planned = planned_traffic(*model, micro.batch.context, dtype);
      add(own, planned.forward, forwards);
      add(own, planned.backward, 1);
    }
  }
  return sent;
}

}  // namespace longreach
