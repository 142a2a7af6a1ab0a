// The one door from fused operators to autograd. Only autograd.cpp pays for torch's autograd headers.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

namespace longreach {

using Tensors = std::vector<at::Tensor>;

// A fused operation with a hand-written gradient.
class FusedOp {
 public:
  virtual ~FusedOp() = default;
  // What errors call it.
  virtual std::string name() const { return "a fused operator"; }
  // Returns the outputs and appends to `saved` what backward needs (inputs and outputs may be saved).
  virtual Tensors forward(const Tensors& inputs, Tensors& saved) const = 0;
  // grads[i] belongs to output i and is undefined when nothing depends on that output. Returns one tensor an
  // input; needs[i] says whether input i wants one (an undefined tensor may be returned for the others).
  virtual Tensors backward(const Tensors& saved, const Tensors& grads,
                           const std::vector<bool>& needs) const = 0;
  // Whether backward is made of differentiable steps, so that with create_graph it may leave its own tape
  // behind.
  virtual bool twice_differentiable() const { return false; }
};

// Runs op and records it on the tape. Undefined inputs are allowed. Gradients taken with create_graph are the
// same numbers; differentiating them throws UserError with the operator's name, unless it is twice
// differentiable. Tensors of any dtype that backward reads and a caller holds belong among the inputs and in
// `saved`: a change of them in between is then an error.
Tensors differentiable(std::shared_ptr<const FusedOp> op, const Tensors& inputs);

}  // namespace longreach
