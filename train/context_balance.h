// How evenly context parallelism would share out the rows that a run begins with, before it runs.
#pragma once
#include <vector>

#include "data/loader.h"
#include "train/model_input.h"
#include "train/run_config.h"

namespace longreach {

// Cost of the dearest rank over the mean, of micro-batches.
struct PredictedBalance {
  Balance balance = Balance::ptrr;
  double mean = 1, most = 1;
};

// For ptrr, headtail and none, in this order: of `micro_batches` from the first on, over `ranks`. plan: its
// grain and cost.
std::vector<PredictedBalance> predicted_balance(const data::TrainLoader& loader,
                                                const TrainingConfig& training, int ranks,
                                                const ContextPlan& plan, int64_t micro_batches);

}  // namespace longreach
