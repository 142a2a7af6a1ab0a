// The generic autograd node behind every fused operator.
#include "layers/ops/common/autograd.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"

namespace longreach {
namespace {

using torch::autograd::AutogradContext;

struct Holder : torch::CustomClassHolder {
  std::shared_ptr<const FusedOp> op;
  std::vector<bool> present;
};

// Hands gradients on, as they are; to differentiate them is the error.
struct NoSecondDerivative : torch::autograd::Function<NoSecondDerivative> {
  static Tensors forward(AutogradContext* context, const std::string& name, at::TensorList gradients) {
    context->saved_data["name"] = name;
    Tensors same;
    for (const at::Tensor& gradient : gradients) same.push_back(gradient.variable_data());
    return same;
  }

  static Tensors backward(AutogradContext* context, const Tensors&) {
    throw UserError(
        text(context->saved_data["name"].toStringRef(),
             ": no second derivative: its gradients, taken with create_graph, cannot be differentiated; the "
             "reference implementation's can"));
  }
};

// What torch.autograd.function.once_differentiable does in Python.
Tensors once_differentiable(const std::string& name, Tensors gradients) {
  Tensors defined;
  for (const at::Tensor& gradient : gradients)
    if (gradient.defined()) defined.push_back(gradient.detach().requires_grad_(true));
  if (defined.empty()) return gradients;
  const Tensors guarded = NoSecondDerivative::apply(name, at::TensorList(defined));
  size_t next = 0;
  for (at::Tensor& gradient : gradients)
    if (gradient.defined()) gradient = guarded[next++];
  return gradients;
}

// The operator's gradients; with create_graph the tape is on.
Tensors gradients_of(const FusedOp& op, const Tensors& saved, const Tensors& grads,
                     const std::vector<bool>& needs) {
  if (!at::GradMode::is_enabled() || op.twice_differentiable()) return op.backward(saved, grads, needs);
  Tensors gradients;
  {
    const at::NoGradGuard no_grad;
    gradients = op.backward(saved, grads, needs);
  }
  return once_differentiable(op.name(), std::move(gradients));
}

// torch's Function takes defined tensors alone: `present` says where they stand among the operation's inputs.
struct Node : torch::autograd::Function<Node> {
  static Tensors forward(AutogradContext* context, std::shared_ptr<const FusedOp> op,
                         std::vector<bool> present, at::TensorList defined) {
    Tensors inputs(present.size()), saved;
    for (size_t i = 0, next = 0; i < present.size(); ++i)
      if (present[i]) inputs[i] = defined[next++];
    Tensors outputs = op->forward(inputs, saved);
    context->save_for_backward(std::move(saved));
    context->set_materialize_grads(false);
    auto holder = c10::make_intrusive<Holder>();
    holder->op = std::move(op);
    holder->present = std::move(present);
    context->saved_data["op"] = c10::IValue::make_capsule(std::move(holder));
    return outputs;
  }

  static Tensors backward(AutogradContext* context, Tensors grads) {
    const auto holder = c10::static_intrusive_pointer_cast<Holder>(context->saved_data["op"].toCapsule());
    const std::vector<bool>& present = holder->present;
    std::vector<bool> needs(present.size());
    // Edge 0 is the first tensor of the list: the op and the flags are no variables.
    for (size_t i = 0, edge = 0; i < present.size(); ++i)
      needs[i] = present[i] && context->needs_input_grad(edge++);
    const Tensors all = gradients_of(*holder->op, context->get_saved_variables(), grads, needs);
    Tensors result(2);  // of the op and the flags
    for (size_t i = 0; i < present.size(); ++i)
      if (present[i]) result.push_back(all[i]);
    return result;
  }
};

}  // namespace

Tensors differentiable(std::shared_ptr<const FusedOp> op, const Tensors& inputs) {
  if (!at::GradMode::is_enabled()) {  // no node: its making costs more than a token's norm
    Tensors saved;
    return op->forward(inputs, saved);
  }
  std::vector<bool> present;
  Tensors defined;
  for (const at::Tensor& input : inputs) {
    present.push_back(input.defined());
    if (input.defined()) defined.push_back(input);
  }
  return Node::apply(std::move(op), std::move(present), at::TensorList(defined));
}

}  // namespace longreach
