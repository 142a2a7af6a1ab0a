#include "train/shared_rows.h"

#include <algorithm>
#include <filesystem>
#include <iomanip>

#include "core/temporary_folder.h"
#include "train/context_balance.h"
#include "train/context_traffic.h"
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

void print_balance(const RunConfig& config, const data::TrainLoader& loader,
                   const std::shared_ptr<Transformer>& model, int ranks, std::ostream& out) {
  const ContextPlan plan = context_plan(config, model, {});
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

int64_t sum_of(const std::map<std::string, int64_t>& sent) {
  int64_t sum = 0;
  for (const auto& [label, bytes] : sent) sum += bytes;
  return sum;
}

void print_traffic(const RunConfig& config, const data::TrainLoader& loader,
                   const std::shared_ptr<Transformer>& model, const ParallelDegrees& degrees,
                   std::ostream& out) {
  const auto sent = context_traffic(config, model, loader, degrees);
  const auto& first = sent.front();
  const bool bounds =
      first.contains("chosen blocks") || config.job.task == "distill" || config.adapter.present();
  for (const auto& [label, bytes] : first)
    out << "sent       " << label << " " << bytes << " bytes by rank 0 in step 1\n";
  int64_t most = 0;
  for (const auto& rank : sent) most = std::max(most, sum_of(rank));
  out << "sent       of shared rows " << sum_of(first) << " bytes by rank 0 in step 1, " << most
      << " by the rank that sends most"
      << (bounds ? "; at most, where blocks are chosen or weights frozen" : "")
      << (config.parallel.context_parallel_method == "fetch" ? "" : "; if keys are fetched") << "\n";
}

}  // namespace

void print_shared_rows(const RunConfig& config, const ParallelDegrees& degrees,
                       const std::shared_ptr<const data::Tokenizer>& tokenizer, std::ostream& out) {
  const data::TrainLoader loader(corpus_of(config, tokenizer),
                                 {.seq_len = config.training.seq_len,
                                  .seed = static_cast<uint64_t>(config.training.seed),
                                  .varlen = config.training.varlen});
  const auto model = model_of_shapes(config);
  print_balance(config, loader, model, static_cast<int>(degrees.context), out);
  print_traffic(config, loader, model, degrees, out);
}

}  // namespace longreach
