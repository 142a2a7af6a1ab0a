// Seeded random tensors for tests: the same numbers on every machine.
#include "tests/support/random_tensors.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>

namespace longreach::test {

at::Tensor normal(at::IntArrayRef shape, uint64_t seed, at::ScalarType dtype, bool grad) {
  auto generator = at::detail::createCPUGenerator(seed);
  at::Tensor values = at::empty(shape, at::kDouble);
  values.normal_(0.0, 1.0, generator);
  return values.to(dtype).detach().requires_grad_(grad);
}

double relative_error(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor reference = b.detach().to(at::kDouble),
                   difference = a.detach().to(at::kDouble).sub(reference);
  const double scale = reference.pow(2).mean().sqrt().item<double>();
  return difference.pow(2).mean().sqrt().item<double>() / std::max(scale, 1e-300);
}

}  // namespace longreach::test
