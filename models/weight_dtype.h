// In which dtype a model keeps its weights.
#pragma once
#include <ATen/core/ScalarType.h>

#include "models/transformer.h"

namespace longreach {

// Brings all weights but norms and biases to `dtype`, in which the branches then compute: bfloat16 halves
// what decoding reads. What is changed comes to lie in one block of memory, one behind the other, for which
// the system has huge pages where single matrices are too small for them; what has the dtype stays where it
// is, so that it is not there twice. For use, not for training.
void store_matrices_as(Transformer& model, at::ScalarType dtype);

// Brings the weights of linear maps and embedding that do not train to `dtype`, for training beside them. The
// branches compute in the dtype that they had; where that is another, one weight at a time is brought to it.
// Parameters of other kinds, which are small, stay as they are.
void store_frozen_weights_as(Transformer& model, at::ScalarType dtype);

}  // namespace longreach
