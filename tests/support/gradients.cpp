#include "tests/support/gradients.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "tests/support/random_tensors.h"

namespace longreach::test {

double gradient_error(const std::function<at::Tensor(const std::vector<at::Tensor>&)>& f,
                      const std::vector<at::Tensor>& inputs) {
  constexpr double kStep = 1e-5;
  std::vector<at::Tensor> leaves;
  for (const auto& input : inputs) leaves.push_back(input.detach().clone().requires_grad_(true));
  const at::Tensor y = f(leaves);
  const at::Tensor weights = normal(y.sizes(), 77);
  (y * weights).sum().backward();
  const auto value = [&](size_t i, const at::Tensor& moved) {
    std::vector<at::Tensor> point;
    for (const auto& leaf : leaves) point.push_back(leaf.detach());
    point[i] = moved;
    return (f(point) * weights).sum().item<double>();
  };
  double worst = 0.0;
  for (size_t i = 0; i < leaves.size(); ++i) {
    for (uint64_t seed = 0; seed < 3; ++seed) {
      const at::Tensor direction = normal(leaves[i].sizes(), 100 + seed), at = leaves[i].detach();
      const double slope =
          (value(i, at + direction * kStep) - value(i, at - direction * kStep)) / (2.0 * kStep);
      if (!leaves[i].grad().defined()) return INFINITY;
      const double taped = (leaves[i].grad() * direction).sum().item<double>();
      const double error = std::abs(slope - taped) / std::max(std::abs(slope), 1e-3);
      worst = std::isnan(error) ? INFINITY : std::max(worst, error);
    }
  }
  return worst;
}

}  // namespace longreach::test
