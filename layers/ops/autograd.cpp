// The generic autograd node behind every fused operator.
#include "layers/ops/autograd.h"

#include <torch/csrc/autograd/custom_function.h>

namespace longreach {
namespace {

using torch::autograd::AutogradContext;

struct Holder : torch::CustomClassHolder {
  std::shared_ptr<const FusedOp> op;
  std::vector<bool> present;
};

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
    const Tensors all = holder->op->backward(context->get_saved_variables(), grads, needs);
    Tensors result(2);  // of the op and the flags
    for (size_t i = 0; i < present.size(); ++i)
      if (present[i]) result.push_back(all[i]);
    return result;
  }
};

}  // namespace

Tensors differentiable(std::shared_ptr<const FusedOp> op, const Tensors& inputs) {
  std::vector<bool> present;
  Tensors defined;
  for (const at::Tensor& input : inputs) {
    present.push_back(input.defined());
    if (input.defined()) defined.push_back(input);
  }
  return Node::apply(std::move(op), std::move(present), at::TensorList(defined));
}

}  // namespace longreach
