// The norm of a step's gradient, and clipping by it.
#pragma once
#include <string>
#include <vector>

#include "distributed/data_parallel.h"

namespace longreach {

// Gradients of a set of parameters, seen as one vector; squares are summed in float64.
struct GradientNorm {
  double norm = 0.0;
  std::string first_nonfinite;  // the first parameter whose gradient is not finite; empty when all are
};
GradientNorm gradient_norm(const std::vector<Run>& runs);
// Of the step's gradient after finish(), the same on all ranks, and on any number of them.
GradientNorm gradient_norm(const DataParallel& parallel, const Group& world);
// Multiplies every gradient by max_norm / norm when norm is larger (max_norm 0: never). Returns the norm that
// is left.
double clip_gradients(const std::vector<Run>& runs, double norm, double max_norm);

}  // namespace longreach
