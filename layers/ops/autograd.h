// The one door from fused operators to autograd. Only autograd.cpp pays for torch's autograd headers.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

namespace longreach {

using Tensors = std::vector<at::Tensor>;

// A fused operation with a hand-written gradient.
class FusedOp {
 public:
  virtual ~FusedOp() = default;
  // Returns the outputs and appends to `saved` what backward needs (inputs and outputs may be saved).
  virtual Tensors forward(const Tensors& inputs, Tensors& saved) const = 0;
  // grads[i] belongs to output i and is undefined when nothing depends on that output. Returns one tensor an
  // input; needs[i] says whether input i wants one (an undefined tensor may be returned for the others).
  virtual Tensors backward(const Tensors& saved, const Tensors& grads,
                           const std::vector<bool>& needs) const = 0;
};

// Runs op and records it on the tape. Undefined inputs are allowed.
Tensors differentiable(std::shared_ptr<const FusedOp> op, const Tensors& inputs);

}  // namespace longreach
