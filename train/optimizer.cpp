#include "train/optimizer.h"

#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <map>

#include "core/error.h"

namespace longreach {

void OptimizerConfig::fields(FieldVisitor& visit) {
  visit.field("name", name, {.help = "optimizer", .allowed = one_of({"AdamW"})});
  visit.field("lr", lr, {.help = "peak learning rate", .allowed = positive_real()});
  visit.field("beta1", beta1, {.help = "decay of the first moment", .allowed = real_between(0, 1)});
  visit.field("beta2", beta2, {.help = "decay of the second moment", .allowed = real_between(0, 1)});
  visit.field("eps", eps, {.help = "added to the root of the second moment", .allowed = positive_real()});
  visit.field("weight_decay", weight_decay,
              {.help = "decoupled decay; norms and biases are not decayed", .allowed = real_between(0, 1e6)});
}

GradientNorm gradient_norm(const NamedParameters& parameters) {
  GradientNorm result;
  double squares = 0;
  for (const auto& [name, parameter] : parameters) {
    const at::Tensor gradient = parameter.grad();
    if (!gradient.defined()) continue;
    const double norm = gradient.detach().norm().item<double>();
    if (!std::isfinite(norm) && result.first_nonfinite.empty()) result.first_nonfinite = name;
    squares += norm * norm;
  }
  result.norm = std::sqrt(squares);
  return result;
}

void clip_gradients(const NamedParameters& parameters, double norm, double max_norm) {
  if (max_norm <= 0 || norm <= max_norm) return;
  const double factor = max_norm / norm;
  for (const auto& [name, parameter] : parameters)
    if (parameter.grad().defined()) parameter.grad().detach().mul_(factor);
}

AdamW::AdamW(NamedParameters parameters, const OptimizerConfig& config) : config_(config) {
  for (auto& [name, parameter] : parameters) {
    const at::Tensor data = parameter.detach();
    // The fused CUDA kernel reads the step from the device of the parameter.
    slots_.push_back({name, parameter, at::zeros_like(data), at::zeros_like(data),
                      at::zeros({}, data.options().dtype(at::kFloat))});
  }
}

void AdamW::step(double lr) {
  std::vector<Slot*> decayed, plain;
  for (auto& slot : slots_)
    if (slot.parameter.grad().defined()) (slot.parameter.dim() >= 2 ? decayed : plain).push_back(&slot);
  step_group(decayed, lr, config_.weight_decay);
  step_group(plain, lr, 0.0);
}

void AdamW::step_group(const std::vector<Slot*>& slots, double lr, double weight_decay) {
  if (slots.empty()) return;
  std::vector<at::Tensor> parameters, gradients, averages, squares, steps;
  for (Slot* slot : slots) {
    slot->step.add_(1);
    parameters.push_back(slot->parameter.detach());
    gradients.push_back(slot->parameter.grad().detach());
    averages.push_back(slot->exp_avg);
    squares.push_back(slot->exp_avg_sq);
    steps.push_back(slot->step);
  }
  at::_fused_adamw_(parameters, gradients, averages, squares, /*max_exp_avg_sqs=*/{}, steps, lr,
                    config_.beta1, config_.beta2, weight_decay, config_.eps, /*amsgrad=*/false,
                    /*maximize=*/false);
}

void AdamW::zero_grad() {
  for (auto& slot : slots_) slot.parameter.mutable_grad() = at::Tensor();
}

NamedParameters AdamW::state() const {
  NamedParameters state;
  for (const auto& slot : slots_) {
    state.emplace_back(slot.name + ".exp_avg", slot.exp_avg);
    state.emplace_back(slot.name + ".exp_avg_sq", slot.exp_avg_sq);
    state.emplace_back(slot.name + ".step", slot.step);
  }
  return state;
}

void AdamW::load(const NamedParameters& state) {
  std::map<std::string, at::Tensor> by_name(state.begin(), state.end());
  const NamedParameters own = this->state();
  for (const auto& [name, tensor] : own) {
    const auto found = by_name.find(name);
    check<CheckpointError>(found != by_name.end(), "optimizer: the checkpoint holds no ", name);
    check<CheckpointError>(found->second.sizes() == tensor.sizes(), "optimizer: ", name, ": shape ",
                           found->second.sizes(), ", expected ", tensor.sizes());
  }
  for (const auto& [name, tensor] : own) tensor.copy_(by_name.at(name));
}

}  // namespace longreach
