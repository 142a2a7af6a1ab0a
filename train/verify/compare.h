// How far a tensor is from its reference, and how far it may be.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>

namespace longreach::verify {

struct Difference {
  double rms = 0;        // RMS(error) over the finite numbers of the reference
  double reference = 0;  // RMS(reference) over the same
  // What no limit excuses: shapes, integers, NaN, infinities out of place; empty otherwise.
  std::string broken;
  double relative() const;
};

// Floating references: NaN or infinity must stand exactly where the reference has it. Integer and bool
// references: equal element by element; `as_sets`: equal as sets along each row of the last axis (index
// lists; -1 pads).
Difference difference(const at::Tensor& got, const at::Tensor& reference, bool as_sets = false);

// The limit on Difference::relative() for a run in `dtype`. own_error: what the reference implementation
// itself has in that dtype on this tensor (0 in float64). Never above the loosest limit: 1e-9 in float64,
// 1e-3 in float32, 1e-1 in bfloat16.
double relative_limit(at::ScalarType dtype, double own_error);
double loosest_relative_limit(at::ScalarType dtype);

// The limit on Difference::rms below which an error is rounding of what it was computed from: 1e-6, in
// float64 1e-12 (with 1e-6, the relative limit would mean nothing for numbers near 1), of max(1, largest
// input): scores of large q and k are rounded by as much. A relative `error` beyond the loosest limit is more
// than that: only values that cancel have it, and those are small beside others of their kind (outputs,
// gradients), so that the floor there is of no more than the largest reference of the kind (0: all are 0, and
// what is there is rounding of the inputs).
double absolute_floor(at::ScalarType dtype, double error, double largest_input, double largest_of_kind);

}  // namespace longreach::verify
