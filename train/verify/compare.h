// How far a tensor is from its reference, and how far it may be.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>

namespace longreach::verify {

struct Difference {
  double rms = 0;        // RMS(error) over the finite numbers of the reference
  double reference = 0;  // RMS(reference) over the same
  std::string
      broken;  // what no limit excuses: shapes, integers, NaN, infinities out of place; empty otherwise
  double relative() const;
};

// Floating references: NaN or infinity must stand exactly where the reference has it. Integer and bool
// references: equal element by element; `as_sets`: equal as sets along each row of the last axis (index
// lists; -1 pads).
Difference difference(const at::Tensor& got, const at::Tensor& reference, bool as_sets = false);

// The limit on Difference::relative() for a run in `dtype`. own_error: what the reference implementation
// itself has in that dtype on this tensor (0 in float64).
double relative_limit(at::ScalarType dtype, double own_error);

// The limit on Difference::rms below which an error is rounding of values that cancel: 1e-6 max(1, largest
// input), in float64 1e-12 of the same (with 1e-6, the relative limit would mean nothing for numbers near 1).
double absolute_floor(at::ScalarType dtype, double largest_input);

}  // namespace longreach::verify
