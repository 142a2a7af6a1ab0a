#include "train/gradient_norm.h"

#include <algorithm>
#include <cmath>

#include "distributed/agreement.h"
#include "distributed/squares.h"
#include "train/finite.h"

namespace longreach {
namespace {

bool has_nonfinite_gradient(const Run& run) {
  const at::Tensor gradient = run.values.grad();
  return gradient.defined() && !std::isfinite(largest_magnitude({gradient}));
}

}  // namespace

GradientNorm gradient_norm(const std::vector<Run>& runs) {
  GradientNorm result;
  double squares = 0;
  for (const Run& run : runs)
    if (run.values.grad().defined())
      squares += added(sums_of_squares(run.values.grad().detach().contiguous(), kSquaresBlock));
  result.norm = std::sqrt(squares);
  const auto broken = std::find_if(runs.begin(), runs.end(), has_nonfinite_gradient);
  if (broken != runs.end()) result.first_nonfinite = broken->name;
  return result;
}

// Ranks look for the run at fault only where all of them know that there is one.
GradientNorm gradient_norm(const DataParallel& parallel, const Group& world) {
  GradientNorm result{.norm = std::sqrt(parallel.squared_norm())};
  if (std::isfinite(result.norm)) return result;
  const std::vector<Run>& runs = parallel.runs();
  const auto own = std::find_if(runs.begin(), runs.end(), has_nonfinite_gradient) - runs.begin();
  const auto first = static_cast<size_t>(-largest_over(world, -static_cast<int64_t>(own), "norm"));
  if (first < runs.size()) result.first_nonfinite = runs[first].name;
  return result;
}

double clip_gradients(const std::vector<Run>& runs, double norm, double max_norm) {
  if (max_norm <= 0 || norm <= max_norm) return norm;
  const double factor = max_norm / norm;
  for (const Run& run : runs)
    if (run.values.grad().defined()) run.values.grad().detach().mul_(factor);
  return max_norm;
}

}  // namespace longreach
