#include "train/finite.h"

#include <ATen/ops/aminmax.h>
#include <ATen/ops/stack.h>

#include <cmath>

namespace longreach {

// The ends of the range carry NaN; one transfer from the device in all.
double largest_magnitude(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> ends;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.numel() == 0) continue;
    const auto [low, high] = at::aminmax(tensor.detach());
    ends.push_back(low.to(at::kDouble));
    ends.push_back(high.to(at::kDouble));
  }
  return ends.empty() ? 0.0 : at::stack(ends).abs().max().item<double>();
}

std::string first_nonfinite(const NamedParameters& tensors) {
  for (const auto& [name, tensor] : tensors)
    if (!std::isfinite(largest_magnitude({tensor}))) return name;
  return "";
}

std::string first_nonfinite(const std::vector<Run>& runs) {
  for (const Run& run : runs)
    if (!std::isfinite(largest_magnitude({run.values}))) return run.name;
  return "";
}

}  // namespace longreach
