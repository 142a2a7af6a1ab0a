// Seeded tensors for tests.
#pragma once
#include <ATen/core/Tensor.h>

namespace longreach::test {

// Normal values, the same for the same seed and shape; a leaf that wants a gradient when `grad` is true.
at::Tensor normal(at::IntArrayRef shape, uint64_t seed, at::ScalarType dtype = at::kDouble,
                  bool grad = false);

// RMS(a - b) / RMS(b), in float64; NaN anywhere gives NaN.
double relative_error(const at::Tensor& a, const at::Tensor& b);

}  // namespace longreach::test
