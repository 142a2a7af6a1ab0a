#include "train/context_balance.h"

#include <algorithm>
#include <filesystem>
#include <iomanip>

#include "core/temporary_folder.h"
#include "train/run_size.h"

namespace longreach {
namespace {

constexpr int64_t kMicroBatches = 64;

const char* name_of(Balance balance) {
  return balance == Balance::none ? "none" : balance == Balance::headtail ? "headtail" : "ptrr";
}

// The run's own store of its text, where there is one; else one that goes.
data::Corpus corpus_of(const RunConfig& config, const std::shared_ptr<const data::Tokenizer>& tokenizer) {
  const std::string own = config.job.dump_folder + "/data";
  if (std::error_code ignored; std::filesystem::exists(own, ignored))
    return data::open_corpus(config.data, own, tokenizer);
  const TemporaryFolder stores;  // an open store outlives its name
  return data::open_corpus(config.data, stores.path(), tokenizer);
}

}  // namespace

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

void print_context_balance(const RunConfig& config, int ranks,
                           const std::shared_ptr<const data::Tokenizer>& tokenizer, std::ostream& out) {
  const data::TrainLoader loader(corpus_of(config, tokenizer),
                                 {.seq_len = config.training.seq_len,
                                  .seed = static_cast<uint64_t>(config.training.seed),
                                  .varlen = config.training.varlen});
  const ContextPlan plan = context_plan(config, model_of_shapes(config), nullptr);
  out << "balance    the dearest of " << ranks << " ranks over the mean, first " << kMicroBatches
      << " micro-batches:" << std::fixed << std::setprecision(3);
  const char* before = " ";
  for (const PredictedBalance& predicted :
       predicted_balance(loader, config.training, ranks, plan, kMicroBatches)) {
    out << before << name_of(predicted.balance) << " " << predicted.mean << " (at most " << predicted.most
        << ")";
    before = ", ";
  }
  out << "; this run: " << name_of(plan.balance) << "\n";
}

}  // namespace longreach
