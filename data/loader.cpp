// Batches for training and validation.
#include <algorithm>

#include "core/error.h"
#include "data/loader.h"
#include "data/packing.h"
#include "data/random.h"

namespace longreach::data {
namespace {

void check_options(const LoaderOptions& options) {
  check<DataError>(options.seq_len >= 1, "training.seq_len = ", options.seq_len, ", allowed: >= 1");
}

std::vector<RowPlan> plans_of(const std::vector<std::shared_ptr<const TokenSource>>& sources,
                              const LoaderOptions& options) {
  check_options(options);
  std::vector<RowPlan> plans;
  for (const auto& source : sources) plans.emplace_back(*source, options);
  return plans;
}

TokenBatch empty_batch(int64_t rows, const LoaderOptions& options) {
  check<DataError>(rows * options.seq_len < int64_t{1} << 31, "a batch of ", rows, " x ", options.seq_len,
                   " tokens, allowed: less than 2^31");
  TokenBatch batch;
  batch.seq_len = options.seq_len;
  for (auto* values : {&batch.tokens, &batch.labels, &batch.positions})
    values->reserve(static_cast<size_t>(rows * options.seq_len));
  batch.cu_seqlens.push_back(0);
  return batch;
}

struct LabelledText {
  int64_t labels = 0;  // tokens that are labelled
  int64_t bytes = 0;   // of text they stand for
};

// What labels cover: each document without its first token (nothing comes before it). The eos that ends a
// document is labelled, but is no text.
LabelledText labelled_text(const TokenSource& source, const Tokenizer& tokenizer, bool varlen) {
  const auto& offsets = source.document_offsets();
  LabelledText total;
  std::vector<Token> block, wanted;
  std::vector<uint8_t> mask;
  for (size_t document = 0; document + 1 < offsets.size(); ++document) {
    const int64_t end = offsets[document + 1];
    for (int64_t at = offsets[document]; at < end; at += static_cast<int64_t>(block.size())) {
      block.resize(static_cast<size_t>(std::min<int64_t>(end - at, 1 << 16)));
      mask.resize(block.size());
      source.read(at, block);
      source.read_loss_mask(at, mask);
      if (at == (varlen ? offsets[document] : 0)) mask[0] = 0;
      total.labels += std::count(mask.begin(), mask.end(), uint8_t{1});
      if (at + static_cast<int64_t>(block.size()) == end && block.back() == tokenizer.eos()) mask.back() = 0;
      wanted.clear();
      for (size_t i = 0; i < block.size(); ++i)
        if (mask[i] != 0) wanted.push_back(block[i]);
      total.bytes += static_cast<int64_t>(tokenizer.decode(wanted).size());
    }
  }
  return total;
}

}  // namespace

struct TrainLoader::Plan {
  std::vector<RowPlan> rows;
  Mixture mixture;
};

TrainLoader::TrainLoader(const Corpus& corpus, const LoaderOptions& options)
    : corpus_(corpus),
      options_(options),
      plan_(std::make_shared<Plan>(
          Plan{plans_of(corpus.train, options), Mixture(corpus.probabilities, mix(options.seed))})) {
  check<DataError>(!corpus.train.empty() && corpus.train.size() == corpus.probabilities.size(),
                   "training corpus: ", corpus.train.size(), " sources with ", corpus.probabilities.size(),
                   " probabilities");
}

TokenBatch TrainLoader::batch(int64_t first_sample, int64_t rows) const {
  TokenBatch batch = empty_batch(rows, options_);
  for (int64_t sample = first_sample; sample < first_sample + rows; ++sample) {
    const auto [source, index] = plan_->mixture.draw(static_cast<uint64_t>(sample));
    const auto ranges = plan_->rows[source].random_row(random_bits(options_.seed, 0, source), index);
    append_row(*corpus_.train[source], ranges, options_, batch);
  }
  return batch;
}

struct ValidLoader::Plan {
  std::vector<RowPlan> rows;
  std::vector<int64_t> first_row;  // of each source, and the total
  LabelledText text;
};

ValidLoader::ValidLoader(const Corpus& corpus, const LoaderOptions& options)
    : corpus_(corpus), options_(options) {
  auto plan = std::make_shared<Plan>();
  plan->rows = plans_of(corpus.valid, options);
  plan->first_row.push_back(0);
  for (size_t i = 0; i < corpus.valid.size(); ++i) {
    plan->first_row.push_back(plan->first_row.back() + plan->rows[i].rows_per_epoch());
    const LabelledText text = labelled_text(*corpus.valid[i], *corpus.tokenizer, options.varlen);
    plan->text.labels += text.labels;
    plan->text.bytes += text.bytes;
  }
  plan_ = std::move(plan);
}

int64_t ValidLoader::num_rows() const { return plan_->first_row.back(); }
int64_t ValidLoader::num_labels() const { return plan_->text.labels; }
int64_t ValidLoader::num_bytes() const { return plan_->text.bytes; }

TokenBatch ValidLoader::batch(int64_t first_row, int64_t rows) const {
  const int64_t end = std::min(first_row + rows, num_rows());
  TokenBatch batch = empty_batch(std::max<int64_t>(end - first_row, 0), options_);
  for (int64_t row = first_row; row < end; ++row) {
    const auto& firsts = plan_->first_row;
    const auto source =
        static_cast<size_t>(std::upper_bound(firsts.begin(), firsts.end(), row) - firsts.begin()) - 1;
    const TokenRange range = plan_->rows[source].row_in_order(row - firsts[source]);
    append_row(*corpus_.valid[source], {&range, 1}, options_, batch);
  }
  return batch;
}

}  // namespace longreach::data
