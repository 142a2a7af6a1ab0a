#include "train/context_balance.h"

#include <algorithm>

namespace longreach {

std::vector<PredictedBalance> predicted_balance(const data::TrainLoader& loader,
                                                const TrainingConfig& training, int ranks,
                                                const ContextPlan& plan, int64_t micro_batches) {
  std::vector<PredictedBalance> predicted;
  for (const Balance balance : {Balance::ptrr, Balance::headtail, Balance::none}) {
    PredictedBalance& of_all = predicted.emplace_back(PredictedBalance{.balance = balance, .mean = 0});
    for (int64_t micro = 0; micro < micro_batches; ++micro) {
      const data::TokenBatch batch = loader.batch(micro * training.batch_size, training.batch_size);
      const double found =
          SequenceLayout(batch.cu_seqlens, ranks, plan.grain, balance, plan.cost).imbalance(plan.cost);
      of_all.mean += found / static_cast<double>(micro_batches);
      of_all.most = std::max(of_all.most, found);
    }
  }
  return predicted;
}

}  // namespace longreach
