#include "train/step_data.h"

namespace longreach {

StepData load_step(const data::TrainLoader& loader, const TrainingConfig& training, const StepPlan& plan,
                   const ContextPlan& context, int64_t step) {
  const int64_t rows = training.batch_size;
  StepData data{.plan = plan};
  for (int64_t micro = plan.first; micro < plan.micro_batches; micro += plan.every) {
    data.micro_batches.push_back(
        to_model_input(loader.batch((step * plan.micro_batches + micro) * rows, rows), context));
    data.labelled += data.micro_batches.back().labelled;
    data.tokens += rows * training.seq_len;
  }
  return data;
}

void add_other_ranks(StepData& data, const Group& data_ranks) {
  const std::vector<int64_t> sums =
      sum_over(data_ranks, std::vector<int64_t>{data.tokens, data.labelled}, "step");
  data.tokens = sums[0];
  data.labelled = sums[1];
}

}  // namespace longreach
