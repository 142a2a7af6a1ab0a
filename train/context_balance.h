// How evenly context parallelism would share out the rows that a run begins with, before it runs.
#pragma once
#include <ostream>
#include <vector>

#include "data/loader.h"
#include "distributed/mesh.h"
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

// What `train --dry-run` prints where ranks share rows; opens the corpus, and leaves nothing behind.
void print_context_balance(const RunConfig& config, int ranks,
                           const std::shared_ptr<const data::Tokenizer>& tokenizer, std::ostream& out);

}  // namespace longreach
