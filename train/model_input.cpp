#include "train/model_input.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "layers/attention/common/context/places.h"
#include "train/ranks.h"

namespace longreach {
namespace {

template <class T>
at::Tensor copy_of(const std::vector<T>& values, at::IntArrayRef shape, at::ScalarType dtype) {
  return at::from_blob(const_cast<T*>(values.data()), shape, at::TensorOptions().dtype(dtype)).clone();
}

}  // namespace

namespace {

// What the first n tokens of a document cost by the model's own count, remembered: spans ask again and again,
// those of the next step beside those of an evaluation.
class ModelCost {
 public:
  explicit ModelCost(std::shared_ptr<Transformer> model) : model_(std::move(model)) {}

  double operator()(int64_t tokens) const {
    if (tokens == 0) return 0;
    const std::lock_guard lock(known_->mutex);
    const auto [found, is_new] = known_->costs.try_emplace(tokens);
    if (is_new) found->second = static_cast<double>(tokens) * model_->flops_per_token(tokens);
    return found->second;
  }

 private:
  struct Known {
    std::mutex mutex;
    std::map<int64_t, double> costs;
  };
  std::shared_ptr<Transformer> model_;
  std::shared_ptr<Known> known_ = std::make_shared<Known>();
};

ModelInput shared(const data::TokenBatch& batch, const ContextPlan& plan) {
  const auto context = std::make_shared<const ContextGroup>(
      plan.ranks, SequenceLayout(batch.cu_seqlens, plan.ranks->size(), plan.grain, plan.balance, plan.cost),
      plan.method, plan.heads);
  const at::Tensor tokens = own_tokens(*context);
  const auto own = [&](const std::vector<int64_t>& values) {
    return copy_of(values, {1, static_cast<int64_t>(values.size())}, at::kLong).index_select(1, tokens);
  };
  ModelInput input{.tokens = own(batch.tokens), .labels = own(batch.labels)};
  input.batch = {.positions = own(batch.positions), .context = context};
  input.imbalance = context->layout().imbalance(plan.cost);
  return input;
}

}  // namespace

Balance balance_of(const std::string& name) {
  return name == "none" ? Balance::none : name == "headtail" ? Balance::headtail : Balance::ptrr;
}

ContextPlan context_plan(const RunConfig& config, const std::shared_ptr<Transformer>& model,
                         const Mesh& mesh) {
  return {.ranks = mesh.context,
          .grain = context_grain(config.model.attention),
          .balance = balance_of(config.parallel.context_parallel_load_balancer),
          .cost = ModelCost(model),
          .method = context_method(config),
          .heads = mesh.heads};
}

ModelInput to_model_input(const data::TokenBatch& batch, const ContextPlan& plan) {
  const auto documents = static_cast<int64_t>(batch.cu_seqlens.size()) - 1;
  const bool packed = documents != batch.rows;  // every row begins a document, so equal counts mean one each
  const std::vector<int64_t> shape = packed ? std::vector<int64_t>{1, batch.rows * batch.seq_len}
                                            : std::vector<int64_t>{batch.rows, batch.seq_len};
  ModelInput input;
  if (plan.ranks) {
    input = shared(batch, plan);
  } else {
    input.tokens = copy_of(batch.tokens, shape, at::kLong);
    input.labels = copy_of(batch.labels, shape, at::kLong);
    input.batch.positions = copy_of(batch.positions, shape, at::kLong);
    if (packed) input.batch.cu_seqlens = copy_of(batch.cu_seqlens, {documents + 1}, at::kInt);
  }
  input.labelled = static_cast<int64_t>(batch.labels.size()) -
                   std::count(batch.labels.begin(), batch.labels.end(), data::kIgnoreLabel);
  return input;
}

}  // namespace longreach
