#include "train/step.h"

#include <algorithm>

#include "models/adapter.h"

namespace longreach {
namespace {

class Step {
 public:
  Step(Transformer& model, const StepData& data, const RunConfig& config, const LossOptions& options)
      : model_(model),
        config_(config),
        options_(options),
        labelled_(static_cast<double>(std::max<int64_t>(data.labelled, 1))) {
    std::vector<Batch> batches;
    for (const ModelInput& micro : data.micro_batches) batches.push_back(micro.batch);
    counts_ = model.loss_counts(batches);
  }

  void backward(const ModelInput& micro) {
    (config_.job.task == "distill" ? gate_loss(micro) : loss(micro)).backward();
  }
  const StepLosses& losses() const { return losses_; }

 private:
  at::Tensor loss(const ModelInput& micro) {
    const LossOutput output = model_.loss(micro.tokens, micro.labels, micro.batch, options_, counts_);
    at::Tensor total = output.loss_sum / labelled_;
    for (size_t i = 0; i < output.auxiliary.size(); ++i) {
      const auto& [name, value] = output.auxiliary[i];
      total = total + value * config_.training.auxiliary_weight;
      if (losses_.auxiliary.size() <= i) losses_.auxiliary.emplace_back(name, 0.0);
      losses_.auxiliary[i].second += value.detach().item<double>();
    }
    losses_.loss += output.nll_sum.item<double>() / labelled_;
    return total;
  }

  at::Tensor gate_loss(const ModelInput& micro) {
    at::Tensor total;
    for (const auto& [name, value] : model_.mechanism_losses(micro.tokens, micro.batch, options_, counts_))
      total = total.defined() ? total + value : value;
    total = total * config_.distillation.gate_loss_scale;
    losses_.loss += total.item<double>();
    return total;
  }

  Transformer& model_;
  const RunConfig& config_;
  const LossOptions& options_;
  const double labelled_;
  LossCounts counts_;
  StepLosses losses_;
};

}  // namespace

StepLosses backward_of_step(Transformer& model, const StepData& data, int64_t steps_done,
                            const RunConfig& config, const LossOptions& options) {
  Step step(model, data, config, options);
  for (size_t i = 0; i < data.micro_batches.size(); ++i) {
    if (config.adapter.present())
      begin_pass(model, static_cast<uint64_t>(steps_done) * data.micro_batches.size() + i);
    step.backward(data.micro_batches[i]);
  }
  return step.losses();
}

}  // namespace longreach
