// Activation checkpointing: keep the inputs of a piece of the model, run it again in backward.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "layers/ops/common/autograd.h"

namespace longreach {

// Runs f(inputs) without a tape; backward runs it again with one and differentiates that (arXiv 1604.06174).
// parameters: every leaf that f uses beside its inputs and that may want a gradient. f must give the same
// bits each time it is called; gradients then have the bits of a run without recomputation.
Tensors recomputed(std::function<Tensors(const Tensors&)> f, const Tensors& inputs,
                   const Tensors& parameters);

// f(inputs), so many of them, as an operator: its backward pass runs f again with a tape. Undefined inputs
// are allowed.
std::shared_ptr<const FusedOp> recomputing_op(std::function<Tensors(const Tensors&)> f, size_t inputs);

}  // namespace longreach
