// Recomputation is a fused operator whose backward calls the tape itself. Parameters are inputs of the
// operator, so that their gradients leave through it like any other (hooks and accumulation see one gradient
// a step).
#include "layers/ops/common/recompute.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

namespace longreach {
namespace {

class RecomputeOp : public FusedOp {
 public:
  RecomputeOp(std::function<Tensors(const Tensors&)> f, size_t inputs, Tensors parameters)
      : f_(std::move(f)), inputs_(inputs), parameters_(std::move(parameters)) {}

  std::string name() const override { return "recomputed"; }

  Tensors forward(const Tensors& all, Tensors& saved) const override {
    saved.assign(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(inputs_));
    return f_(saved);
  }

  Tensors backward(const Tensors& saved, const Tensors& grads,
                   const std::vector<bool>& needs) const override {
    const at::AutoGradMode with_tape(true);
    Tensors inputs, wanted;
    for (size_t i = 0; i < inputs_; ++i) {
      inputs.push_back(needs[i] ? saved[i].detach().requires_grad_(true) : saved[i]);
      if (needs[i]) wanted.push_back(inputs.back());
    }
    for (size_t i = 0; i < parameters_.size(); ++i)
      if (needs[inputs_ + i]) wanted.push_back(parameters_[i]);
    const Tensors outputs = f_(inputs);
    Tensors used, gradients;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!grads[i].defined() || !outputs[i].requires_grad()) continue;
      used.push_back(outputs[i]);
      gradients.push_back(grads[i]);
    }
    Tensors result(inputs_ + parameters_.size());
    if (used.empty() || wanted.empty()) return result;
    const Tensors found = torch::autograd::grad(used, wanted, gradients, std::nullopt, false, true);
    for (size_t i = 0, next = 0; i < result.size(); ++i)
      if (needs[i]) result[i] = found[next++];
    return result;
  }

 private:
  std::function<Tensors(const Tensors&)> f_;
  size_t inputs_;
  Tensors parameters_;
};

}  // namespace

std::shared_ptr<const FusedOp> recomputing_op(std::function<Tensors(const Tensors&)> f, size_t inputs) {
  return std::make_shared<RecomputeOp>(std::move(f), inputs, Tensors());
}

Tensors recomputed(std::function<Tensors(const Tensors&)> f, const Tensors& inputs,
                   const Tensors& parameters) {
  Tensors all = inputs;
  all.insert(all.end(), parameters.begin(), parameters.end());
  return differentiable(std::make_shared<RecomputeOp>(std::move(f), inputs.size(), parameters), all);
}

}  // namespace longreach
