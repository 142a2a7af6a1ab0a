// Weights as a model that is used, not trained, reads them fastest.
#pragma once
#include <ATen/core/ScalarType.h>

#include "models/transformer.h"

namespace longreach {

// Brings all weights but norms and biases to `dtype`, in which the branches then compute: bfloat16 halves
// what decoding reads. What is changed comes to lie in one block of memory, one behind the other, for which
// the system has huge pages where single matrices are too small for them; what has the dtype stays where it
// is, so that it is not there twice. For use, not for training.
void store_matrices_as(Transformer& model, at::ScalarType dtype);

}  // namespace longreach
