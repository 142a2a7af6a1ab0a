// The modules' kernels on a device against the same calls interpreted: norms, rotary embedding, SwiGLU,
// cross-entropy, forward and backward.
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "layers/basic/loss.h"
#include "layers/basic/rope.h"
#include "layers/ops/rows/rows.h"
#include "tests/layers/ops/cuda/interpreted_device.h"
#include "tests/support/device_fixture.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {
namespace {

using Tensors = std::vector<at::Tensor>;
using Function = std::function<at::Tensor(const Tensors&)>;

// y and the gradients of the floating inputs, on the CPU.
Tensors results(const Function& f, const Tensors& inputs, at::Device device) {
  Tensors there, leaves;
  for (const at::Tensor& x : inputs) {
    there.push_back(x.detach().to(device, x.scalar_type(), false, /*copy=*/true));
    if (x.is_floating_point()) leaves.push_back(there.back().requires_grad_(true));
  }
  const at::Tensor y = f(there);
  Tensors all{y.detach().to(at::kCPU)};
  const at::Tensor grad = normal(y.sizes(), 77).to(y.options());
  for (const at::Tensor& g : torch::autograd::grad({y}, leaves, {grad})) all.push_back(g.to(at::kCPU));
  return all;
}

// Elementwise kernels round once: half of the limits of their own tests.
void expect_as_interpreted(const Function& f, const Tensors& inputs) {
  const at::ScalarType dtype = inputs[0].scalar_type();
  SCOPED_TRACE(at::toString(dtype));
  const Tensors found = results(f, inputs, at::kCUDA);
  const InterpretedDevice device;
  const Tensors interpreted = results(f, inputs, at::kCPU);
  const double limit = dtype == at::kFloat ? 5e-6 : dtype == at::kHalf ? 1e-3 : 5e-3;
  for (size_t i = 0; i < found.size(); ++i) EXPECT_LE(relative_error(found[i], interpreted[i]), limit) << i;
}

TEST_F(Device, ModulesAreAsInterpreted) {
  at::Tensor labels = (normal({40}, 3).abs() * 7919).to(at::kLong).remainder(300);
  labels.narrow(0, 4, 3).fill_(kIgnoredLabel);
  const at::Tensor weight = normal({264}, 9, at::kFloat), angles = normal({2, 5, 16}, 8, at::kFloat);
  for (const auto dtype : {at::kBFloat16, at::kHalf, at::kFloat}) {
    const auto draw = [&](at::IntArrayRef shape, uint64_t seed) { return normal(shape, seed).to(dtype); };
    expect_as_interpreted([](const Tensors& in) { return rms_norm(in[0], in[1], 1e-5); },
                          {draw({9, 264}, 1), weight});
    expect_as_interpreted(
        [&](const Tensors& in) {
          return rotate(in[0], {angles.cos().to(in[0].device()), angles.sin().to(in[0].device())});
        },
        {draw({2, 5, 3, 32}, 2)});
    expect_as_interpreted([](const Tensors& in) { return silu_product(in[0], in[1]); },
                          {draw({7, 264}, 3), draw({7, 264}, 4)});
    expect_as_interpreted(
        [](const Tensors& in) {
          return chunked_cross_entropy(in[0], in[1], in[2], {.z_loss = 1e-3, .chunk_tokens = 16}).loss_sum;
        },
        {draw({40, 24}, 5), normal({300, 24}, 6, at::kFloat), labels});
  }
}

}  // namespace
}  // namespace longreach::test
