// Whether numbers are finite, by one pass over each tensor.
#pragma once
#include <string>
#include <vector>

#include "core/error.h"
#include "train/optimizer.h"

namespace longreach {

// The largest absolute value of all tensors, 0 when they hold none; NaN or infinity when one of them does.
double largest_magnitude(const std::vector<at::Tensor>& tensors);

// The first tensor that holds a NaN or an infinity; empty when none does.
std::string first_nonfinite(const NamedParameters& tensors);
std::string first_nonfinite(const std::vector<Run>& runs);

// Throws E: what no step can go on from is neither written nor read. tensors: named, or runs.
template <class E, class Tensors>
void expect_finite(const Tensors& tensors, const std::string& origin) {
  const std::string broken = first_nonfinite(tensors);
  check<E>(broken.empty(), origin, ": ", broken, " holds a NaN or an infinity");
}

}  // namespace longreach
