// Data parallelism where every rank holds the whole model: gradients become their sum over ranks.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "distributed/agreement.h"

namespace longreach {

// The gradient of every parameter becomes the sum over the group, in the order of ranks: the bits that one
// rank has after as many micro-batches. A gradient that no rank has stays undefined; where only some have
// one, it counts as zero on the others. All ranks list the same parameters.
void sum_gradients(const std::vector<at::Tensor>& parameters, const Group& group);

}  // namespace longreach
