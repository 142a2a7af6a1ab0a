#include "train/optimizer.h"

#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "train/finite.h"

namespace longreach {
namespace {

const double kBelowOne =
    std::nextafter(1.0, 0.0);  // at 1 a moment would keep nothing but its first value, zero

}  // namespace

void OptimizerConfig::fields(FieldVisitor& visit) {
  visit.field("name", name, {.help = "optimizer", .allowed = one_of({"AdamW"})});
  visit.field("lr", lr, {.help = "peak learning rate", .allowed = positive_real()});
  visit.field("beta1", beta1, {.help = "decay of the first moment", .allowed = real_between(0, kBelowOne)});
  visit.field("beta2", beta2, {.help = "decay of the second moment", .allowed = real_between(0, kBelowOne)});
  visit.field("eps", eps,
              {.help = "added to the root of the second moment, in float32",
               .allowed = RealRange{std::numeric_limits<float>::min()}});
  visit.field(
      "weight_decay", weight_decay,
      {.help =
           "decoupled decay of matrices and embeddings; norms, biases, frequencies, positions and learned "
           "constants are not decayed",
       .allowed = real_between(0, 1e6)});
}

std::vector<Run> whole_runs(const NamedParameters& parameters) {
  std::vector<Run> runs;
  for (const auto& [name, parameter] : parameters)
    runs.push_back({.name = name, .shape = parameter.sizes().vec(), .values = parameter});
  return runs;
}

AdamW::AdamW(const std::vector<Run>& runs, const std::set<std::string>& undecayed,
             const OptimizerConfig& config, OverRanks largest)
    : config_(config), largest_(std::move(largest)) {
  for (const Run& run : runs) {
    const at::Tensor data = run.values.detach();
    slots_.push_back({.run = run,
                      .exp_avg = at::zeros_like(data),
                      .exp_avg_sq = at::zeros_like(data),
                      .step = at::zeros({}, data.options().dtype(at::kFloat)),
                      .decays = undecayed.count(run.name) == 0});
  }
}

bool AdamW::step(double lr, double gradient_norm) {
  if (largest_parameter_ < 0) measure();
  if (stays_finite(lr, gradient_norm)) {
    update(lr);
    largest_average_ = std::max(largest_average_, gradient_norm);
    largest_parameter_ = over_ranks(largest_magnitude(parameters()));
    if (!std::isfinite(largest_parameter_))
      throw TrainingError("a parameter is not finite, and no update made it so");
    return true;
  }
  std::vector<at::Tensor> before;
  for (const at::Tensor& tensor : tensors()) before.push_back(tensor.clone());
  update(lr);
  const bool finite = std::isfinite(over_ranks(largest_magnitude(tensors())));
  if (!finite)
    for (size_t i = 0; i < before.size(); ++i) tensors()[i].copy_(before[i]);
  measure();
  return finite;
}

// The first moment is a mean of gradients, so no larger than the largest of them; the second one no larger
// than its square; the denominator no smaller than eps; the bias correction of the first moment no smaller
// than 1 - beta1.
bool AdamW::stays_finite(double lr, double gradient_norm) const {
  constexpr double kSafe = 1e37, kSafeSquared = 1e18;  // float32 ends at 3.4e38
  const double rate = lr / (1 - config_.beta1);
  const double numerator = rate * std::max(largest_average_, gradient_norm);
  const double kept = largest_parameter_ * std::max(1.0, lr * config_.weight_decay);
  return gradient_norm < kSafeSquared && rate < kSafe && numerator < kSafe &&
         kept + numerator / config_.eps < kSafe;
}

void AdamW::measure() {
  std::vector<at::Tensor> averages;
  for (const auto& slot : slots_) averages.push_back(slot.exp_avg);
  largest_average_ = over_ranks(largest_magnitude(averages));
  largest_parameter_ = over_ranks(largest_magnitude(parameters()));
}

std::vector<at::Tensor> AdamW::parameters() const {
  std::vector<at::Tensor> all;
  for (const auto& slot : slots_) all.push_back(slot.run.values.detach());
  return all;
}

std::vector<at::Tensor> AdamW::tensors() const {
  std::vector<at::Tensor> all = parameters();
  for (const auto& slot : slots_) all.insert(all.end(), {slot.exp_avg, slot.exp_avg_sq, slot.step});
  return all;
}

void AdamW::update(double lr) {
  std::vector<Slot*> decayed, plain;
  for (auto& slot : slots_)
    if (slot.run.values.grad().defined()) (slot.decays ? decayed : plain).push_back(&slot);
  update_group(decayed, lr, config_.weight_decay);
  update_group(plain, lr, 0.0);
}

void AdamW::update_group(const std::vector<Slot*>& slots, double lr, double weight_decay) {
  if (slots.empty()) return;
  std::vector<at::Tensor> parameters, gradients, averages, squares, steps;
  for (Slot* slot : slots) {
    slot->step.add_(1);
    if (slot->run.values.numel() == 0) continue;
    parameters.push_back(slot->run.values.detach());
    gradients.push_back(slot->run.values.grad().detach());
    averages.push_back(slot->exp_avg);
    squares.push_back(slot->exp_avg_sq);
    steps.push_back(slot->step);
  }
  if (parameters.empty()) return;
  at::_fused_adamw_(parameters, gradients, averages, squares, /*max_exp_avg_sqs=*/{}, steps, lr,
                    config_.beta1, config_.beta2, weight_decay, config_.eps, /*amsgrad=*/false,
                    /*maximize=*/false);
}

void AdamW::zero_grad() {
  for (auto& slot : slots_) slot.run.values.mutable_grad() = at::Tensor();
}

RankRuns AdamW::state() const {
  RankRuns state;
  for (const Slot& slot : slots_) {
    const Run& run = slot.run;
    const auto add = [&](const char* what, const at::Tensor& values) {
      state.own.push_back(
          {.name = run.name + what, .shape = run.shape, .begin = run.begin, .values = values});
    };
    add(".exp_avg", slot.exp_avg);
    add(".exp_avg_sq", slot.exp_avg_sq);
    state.common.push_back({.name = run.name + ".step", .values = slot.step});
  }
  return state;
}

NamedParameters AdamW::whole_state() const {
  NamedParameters state;
  for (const Slot& slot : slots_) {
    const auto& [name, shape] = std::pair(slot.run.name, slot.run.shape);
    state.emplace_back(name + ".exp_avg", slot.exp_avg.view(shape));
    state.emplace_back(name + ".exp_avg_sq", slot.exp_avg_sq.view(shape));
    state.emplace_back(name + ".step", slot.step);
  }
  return state;
}

void AdamW::load(const ShardedTensors& from) {
  read_runs(from, all_of(state()), "optimizer");
  largest_parameter_ = -1;
}

}  // namespace longreach
