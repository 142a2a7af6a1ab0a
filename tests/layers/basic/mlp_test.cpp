// The fused silu product against its formula.
#include "layers/basic/mlp.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/sigmoid.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "layers/ops/rows/rows.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;

TEST(SiluProduct, IsTheFormulaAndHasItsGradient) {
  const at::Tensor gate = normal({3, 11}, 1), up = normal({3, 11}, 2);
  EXPECT_LE(relative_error(silu_product(gate, up), gate * at::sigmoid(gate) * up), 1e-14);
  EXPECT_LE(gradient_error([](const std::vector<at::Tensor>& in) { return silu_product(in[0], in[1]); },
                           {gate, up}),
            1e-7);
}

TEST(Mlp, BothKinds) {
  const LayerSite site{.hidden_size = 6, .initializer_range = 0.5, .seed = 3};
  const at::Tensor x = normal({2, 3, 6}, 1, at::kFloat);
  Mlp swiglu("swiglu", 10, false, site), sglu("sglu", 10, false, site);
  const auto weight = [&](const char* name) { return swiglu.named_parameters()[name].detach(); };
  const at::Tensor gate = x.matmul(weight("gate_proj.weight").t()),
                   up = x.matmul(weight("up_proj.weight").t());
  const at::Tensor down = weight("down_proj.weight").t();
  EXPECT_LE(relative_error(swiglu.forward(x), (gate * at::sigmoid(gate) * up).matmul(down)), 1e-6);
  EXPECT_LE(relative_error(sglu.forward(x), (gate * up).matmul(down)), 1e-6);
  EXPECT_THROW(Mlp("relu", 10, false, site), ConfigError);
}

TEST(Mlp, HasBiasesWhereAsked) {
  const LayerSite site{.hidden_size = 6, .initializer_range = 0.5, .seed = 3};
  const at::Tensor x = normal({2, 3, 6}, 1, at::kFloat);
  Mlp mlp("sglu", 10, true, site);
  const at::NoGradGuard no_grad;
  const auto part = [&](const char* name) { return mlp.named_parameters()[name]; };
  for (const char* name : {"gate_proj.bias", "up_proj.bias", "down_proj.bias"})
    part(name).copy_(normal(part(name).sizes().vec(), 2, at::kFloat));
  const at::Tensor gate = x.matmul(part("gate_proj.weight").t()) + part("gate_proj.bias"),
                   up = x.matmul(part("up_proj.weight").t()) + part("up_proj.bias"),
                   down = (gate * up).matmul(part("down_proj.weight").t()) + part("down_proj.bias");
  EXPECT_LE(relative_error(mlp.forward(x), down), 1e-6);
}

}  // namespace
}  // namespace longreach
