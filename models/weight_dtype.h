// Models whose weights are narrower than they were trained.
#pragma once
#include <ATen/core/ScalarType.h>

#include "models/transformer.h"

namespace longreach {

// Rounds all weights but norms and biases to `dtype`, in which the branches then compute: bfloat16 halves
// what decoding reads. For use, not for training.
void store_matrices_as(Transformer& model, at::ScalarType dtype);

}  // namespace longreach
