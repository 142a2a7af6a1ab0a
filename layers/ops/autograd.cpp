// The generic autograd node behind every fused operator.
#include "layers/ops/autograd.h"

#include <torch/csrc/autograd/custom_function.h>

namespace longreach {
namespace {

using torch::autograd::AutogradContext;

struct Holder : torch::CustomClassHolder {
  std::shared_ptr<const FusedOp> op;
};

struct Node : torch::autograd::Function<Node> {
  static Tensors forward(AutogradContext* context, std::shared_ptr<const FusedOp> op, at::TensorList inputs) {
    Tensors saved;
    Tensors outputs = op->forward(inputs.vec(), saved);
    context->save_for_backward(std::move(saved));
    context->set_materialize_grads(false);
    auto holder = c10::make_intrusive<Holder>();
    holder->op = std::move(op);
    context->saved_data["op"] = c10::IValue::make_capsule(std::move(holder));
    context->saved_data["inputs"] = static_cast<int64_t>(inputs.size());
    return outputs;
  }

  static Tensors backward(AutogradContext* context, Tensors grads) {
    const auto holder = c10::static_intrusive_pointer_cast<Holder>(context->saved_data["op"].toCapsule());
    const auto count = static_cast<size_t>(context->saved_data["inputs"].toInt());
    std::vector<bool> needs(count);
    // Edge 0 is the first tensor of the list: the op itself is no variable.
    for (size_t i = 0; i < count; ++i) needs[i] = context->needs_input_grad(i);
    Tensors result = holder->op->backward(context->get_saved_variables(), grads, needs);
    result.insert(result.begin(), at::Tensor());
    return result;
  }
};

}  // namespace

Tensors differentiable(std::shared_ptr<const FusedOp> op, const Tensors& inputs) {
  return Node::apply(std::move(op), at::TensorList(inputs));
}

}  // namespace longreach
