// What one rank trains of a step.
#pragma once
#include <vector>

#include "data/loader.h"
#include "train/model_input.h"
#include "train/ranks.h"

namespace longreach {

struct StepData {
  StepPlan plan;
  std::vector<ModelInput> micro_batches;  // of this rank
  int64_t tokens = 0, labelled = 0;       // of these; after add_other_ranks of the whole step
  bool nan_loss = false;                  // a fault on purpose (fault.h)
  double seconds = 0;                     // until this rank had them
};

// step: how many went before.
StepData load_step(const data::TrainLoader& loader, const TrainingConfig& training, const StepPlan& plan,
                   const ContextPlan& context, int64_t step);

void add_other_ranks(StepData& data, const Group& data_ranks);

}  // namespace longreach
