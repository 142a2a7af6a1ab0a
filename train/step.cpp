#include "train/step.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "distributed/context_group.h"
#include "models/adapter.h"

namespace longreach {
namespace {

// Rows, tokens a row and documents' bounds of a batch, after how many bounds there are.
void append_form(const Batch& batch, std::vector<int64_t>& forms) {
  if (batch.context) {
    const std::vector<int32_t>& bounds = batch.context->layout().cu_seqlens();
    forms.insert(forms.end(), {1, bounds.back(), static_cast<int64_t>(bounds.size())});
    forms.insert(forms.end(), bounds.begin(), bounds.end());
    return;
  }
  const int64_t bounds = batch.cu_seqlens.defined() ? batch.cu_seqlens.numel() : 0;
  forms.insert(forms.end(), {batch.positions.size(0), batch.positions.size(1), bounds});
  for (int64_t i = 0; i < bounds; ++i) forms.push_back(batch.cu_seqlens.const_data_ptr<int32_t>()[i]);
}

// Batches of those forms; of their positions the shape alone means something.
std::vector<Batch> batches_of(const std::vector<int64_t>& forms) {
  std::vector<Batch> batches;
  for (auto at = forms.begin(); at != forms.end();) {
    Batch batch{.positions = at::zeros({1, 1}, at::kLong).expand({at[0], at[1]})};
    const int64_t bounds = at[2];
    at += 3;
    if (bounds > 0) batch.cu_seqlens = at::empty({bounds}, at::kInt);
    for (int64_t i = 0; i < bounds; ++i)
      batch.cu_seqlens.mutable_data_ptr<int32_t>()[i] = static_cast<int32_t>(*at++);
    batches.push_back(std::move(batch));
  }
  return batches;
}

// The numbers of one micro-batch: its share of the loss, then its auxiliary losses.
using Numbers = std::vector<double>;
using Clock = std::chrono::steady_clock;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
// What a context group tells of how it shares: blocks that were earlier, that were chosen, imbalance,
// slowest.
constexpr int kShared = 4;

double waited_in(const Group& group) {
  double seconds = 0;
  if (group)
    for (const auto& [label, moved] : group->traffic()) seconds += moved.seconds;
  return seconds;
}

class Step {
 public:
  Step(Transformer& model, const StepData& data, const RunConfig& config, const LossOptions& options,
       const Mesh& mesh, const Teacher* teacher)
      : model_(model),
        data_(data),
        config_(config),
        options_(options),
        mesh_(mesh),
        teacher_(teacher),
        labelled_(static_cast<double>(std::max<int64_t>(data.labelled, 1))),
        counts_(counts_of_step()) {}

  void backward(const ModelInput& micro) {
    const auto start = Clock::now();
    const double waited = waited_in(mesh_.context);
    const bool distills = config_.job.task == "distill";
    (teacher_ ? teacher_loss(micro) : distills ? gate_loss(micro) : loss(micro)).backward();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    seconds_ += seconds;
    worked_ += seconds - (waited_in(mesh_.context) - waited);
  }

  StepLosses losses() const {
    StepLosses losses;
    for (const std::string& name : names_) losses.auxiliary.emplace_back(name, 0.0);
    const std::vector<Numbers> of_ranks = gather(mesh_.data, own_numbers(), "step");
    for (const Numbers& numbers : of_ranks) losses.seconds.push_back(numbers.back());
    if (mesh_.context) losses.context = context_figures(of_ranks);
    for (const Numbers& numbers : of_all_micro_batches(of_ranks)) {
      losses.loss += numbers[0];
      for (size_t i = 0; i < names_.size(); ++i) losses.auxiliary[i].second += numbers[i + 1];
    }
    return losses;
  }

 private:
  at::Tensor loss(const ModelInput& micro) {
    LossOutput output = model_.loss(micro.tokens, micro.labels, micro.batch, options_, counts_);
    if (data_.nan_loss) {
      output.loss_sum = output.loss_sum * kNan;
      output.nll_sum = output.nll_sum * kNan;
    }
    at::Tensor total = output.loss_sum / labelled_;
    Numbers numbers = {output.nll_sum.item<double>() / labelled_};
    names_.clear();
    for (const auto& [name, value] : output.auxiliary) {
      total = total + value * config_.training.auxiliary_weight;
      names_.push_back(name);
      numbers.push_back(value.detach().item<double>());
    }
    numbers_.push_back(std::move(numbers));
    return total;
  }

  at::Tensor gate_loss(const ModelInput& micro) {
    at::Tensor total;
    for (const auto& [name, value] : model_.mechanism_losses(micro.tokens, micro.batch, options_, counts_))
      total = total.defined() ? total + value : value;
    total = total * (data_.nan_loss ? kNan : config_.distillation.gate_loss_scale);
    numbers_.push_back({total.item<double>()});
    return total;
  }

  // Of each kind a mean: over the step's tokens, of distributions over its labels.
  at::Tensor teacher_loss(const ModelInput& micro) {
    const DistillationWeights weights = weights_of(config_.distillation);
    const DistillationLosses losses = distillation_losses(model_, *teacher_->model, micro.tokens,
                                                          micro.labels, micro.batch, options_, weights);
    at::Tensor total;
    Numbers numbers = {0.0};
    names_.clear();
    const auto add = [&](const char* name, const at::Tensor& sum, double weight, double count) {
      if (!sum.defined()) return;
      const at::Tensor mean = sum * ((data_.nan_loss ? kNan : 1.0) / count);
      total = total.defined() ? total + mean * weight : mean * weight;
      names_.emplace_back(name);
      numbers.push_back(mean.item<double>());
    };
    const auto tokens = static_cast<double>(data_.tokens);
    add("attention", losses.attention, weights.attention, tokens);
    add("hidden", losses.hidden, weights.hidden, tokens);
    add("logits", losses.logits, weights.logits, labelled_);
    numbers[0] = total.item<double>();
    numbers_.push_back(std::move(numbers));
    return total;
  }

  // What a mechanism divides by need not be a sum over micro-batches, so it sees those of all ranks.
  LossCounts counts_of_step() const {
    std::vector<int64_t> own;
    for (const ModelInput& micro : data_.micro_batches) append_form(micro.batch, own);
    std::vector<Batch> batches;
    for (const std::vector<int64_t>& forms : gather(mesh_.data, own, "step")) {
      const auto of_rank = batches_of(forms);
      batches.insert(batches.end(), of_rank.begin(), of_rank.end());
    }
    return model_.loss_counts(batches);
  }

  // Of this rank's micro-batches, summed over those that share them; then how these share (in kShared
  // numbers), and its seconds.
  Numbers own_numbers() const {
    Numbers flat;
    for (const Numbers& numbers : numbers_) flat.insert(flat.end(), numbers.begin(), numbers.end());
    if (mesh_.context) append_choices(flat);
    flat = sum_over(mesh_.context, std::move(flat), "step");
    if (mesh_.context) append_balance(flat);
    flat.push_back(data_.seconds + seconds_);
    return flat;
  }

  void append_choices(Numbers& flat) const {
    BlockChoices all;
    for (const ModelInput& micro : data_.micro_batches) {
      if (!micro.batch.context) continue;
      const BlockChoices choices = micro.batch.context->all_choices();
      all.earlier += choices.earlier;
      all.chosen += choices.chosen;
    }
    flat.push_back(static_cast<double>(all.earlier));
    flat.push_back(static_cast<double>(all.chosen));
  }

  void append_balance(Numbers& flat) const {
    double imbalance = 0, slowest = 0, sum = 0;
    for (const ModelInput& micro : data_.micro_batches) imbalance += micro.imbalance;
    for (const Numbers& worked : gather(mesh_.context, Numbers{worked_}, "step")) {
      slowest = std::max(slowest, worked[0]);
      sum += worked[0];
    }
    flat.push_back(imbalance / static_cast<double>(data_.micro_batches.size()));
    flat.push_back(slowest * mesh_.context->size() / sum);
  }

  static ContextFigures context_figures(const std::vector<Numbers>& of_ranks) {
    ContextFigures figures{.imbalance = 0};
    double earlier = 0, chosen = 0;
    for (const Numbers& numbers : of_ranks) {
      const auto shared = numbers.end() - 1 - kShared;
      earlier += shared[0];
      chosen += shared[1];
      figures.imbalance += shared[2] / static_cast<double>(of_ranks.size());
      figures.slowest_over_mean = std::max(figures.slowest_over_mean, shared[3]);
    }
    if (earlier > 0) figures.selected_union = chosen / earlier;
    return figures;
  }

  // In their order, which is how one rank adds them.
  std::vector<Numbers> of_all_micro_batches(const std::vector<Numbers>& of_ranks) const {
    const auto length = static_cast<int64_t>(names_.size()) + 1;
    std::vector<Numbers> all;
    for (int64_t micro = 0; micro < data_.plan.micro_batches; ++micro) {
      const auto begin =
          of_ranks[static_cast<size_t>(micro % data_.plan.every)].begin() + micro / data_.plan.every * length;
      all.emplace_back(begin, begin + length);
    }
    return all;
  }

  Transformer& model_;
  const StepData& data_;
  const RunConfig& config_;
  const LossOptions& options_;
  const Mesh& mesh_;
  const Teacher* teacher_;
  const double labelled_;
  const LossCounts counts_;
  std::vector<std::string> names_;  // of auxiliary losses
  std::vector<Numbers> numbers_;    // of this rank's micro-batches
  double seconds_ = 0;              // in their passes
  double worked_ = 0;               // of these, not waiting for ranks that share them
};

}  // namespace

StepLosses backward_of_step(Transformer& model, DataParallel& parallel, const StepData& data,
                            int64_t steps_done, const RunConfig& config, const LossOptions& options,
                            const Mesh& mesh, const Teacher* teacher) {
  Step step(model, data, config, options, mesh, teacher);
  int64_t number = steps_done * data.plan.micro_batches + data.plan.first;  // among all of the run
  for (const ModelInput& micro : data.micro_batches) {
    parallel.begin_micro_batch(&micro == &data.micro_batches.back());
    // Ranks that share a micro-batch draw masks of dropout of their own.
    const int64_t pass = number * size_of(mesh.context) + rank_in(mesh.context);
    if (config.adapter.present()) begin_pass(model, static_cast<uint64_t>(pass));
    step.backward(micro);
    number += data.plan.every;
  }
  return step.losses();
}

}  // namespace longreach
