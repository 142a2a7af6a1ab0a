// Sums of squares whose bits do not depend on how a vector is cut among ranks.
#pragma once
#include <ATen/core/Tensor.h>

namespace longreach {

// Of each block of `block` elements of x, float32 and contiguous, in float64, on the CPU. A block's sum
// depends on nothing but its elements.
at::Tensor sums_of_squares(const at::Tensor& x, int64_t block);

// The elements of float64 `sums`, one after the other.
double added(const at::Tensor& sums);

}  // namespace longreach
