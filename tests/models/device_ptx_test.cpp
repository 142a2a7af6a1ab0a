// A whole model on the device's path, loss and every gradient, each kernel interpreted: the same numbers as on the CPU, and no
// part of a layer left to another path.
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "models/transformer.h"
#include "tests/layers/cuda/interpreted_device.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;

ModelConfig three_mechanisms() {
  ModelConfig config;
  config.hidden_size = 48;
  config.num_hidden_layers = 3;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.intermediate_size = 56;
  config.initializer_range = 0.2;
  config.qk_norm = true;
  config.head_dim = 16;
  config.attention = {{.layers = "0", .config = DenseConfig{}},
                      {.layers = "1", .config = SlidingConfig{.window = 20, .sinks = 1}},
                      {.layers = "2", .config = LightningConfig{}}};
  config.resolve(50);
  return config;
}

struct Pass {
  double loss = 0;
  std::map<std::string, at::Tensor> gradients;
};

Pass train_once(Transformer& model, const LossOptions& options) {
  const at::Tensor tokens = (normal({2, 71}, 11).mul_(1e4).to(at::kLong)).remainder(50);
  const LossOutput out =
      model.loss(tokens.narrow(1, 0, 70), tokens.narrow(1, 1, 70).clone(), whole_rows(2, 70), options);
  (out.loss_sum / static_cast<double>(out.tokens)).backward();
  Pass pass{out.loss_sum.item<double>(), {}};
  for (const auto& item : model.named_parameters()) pass.gradients[item.key()] = item.value().grad();
  return pass;
}

void expect_the_same(const LossOptions& options, double limit, const std::vector<std::string>& kernels) {
  Transformer on_host(three_mechanisms(), 5);
  const Pass wanted = train_once(on_host, options);
  InterpretedDevice device;
  Transformer on_device(three_mechanisms(), 5);
  const Pass found = train_once(on_device, options);
  EXPECT_NEAR(found.loss, wanted.loss, limit * wanted.loss);
  ASSERT_EQ(found.gradients.size(), wanted.gradients.size());
  for (const auto& [name, gradient] : wanted.gradients)
    EXPECT_LE(relative_error(found.gradients.at(name), gradient), limit) << name;
  for (const std::string& kernel : kernels)
    EXPECT_TRUE(device.runs().contains(kernel)) << kernel << " was not run";
  // cos and sin are gathered once a pass; each of the two layers with positions turns q and k.
  EXPECT_EQ(device.runs().at("rotary_halves_" + std::string(options.autocast_bf16 ? "bf16" : "fp32")), 8);
}

TEST(ModelOnTheDevicesPath, Float32) {
  expect_the_same({}, 1e-4,
                  {"rms_norm_fp32_fp32", "rms_norm_grad_fp32_fp32", "silu_product_fp32",
                   "silu_product_grad_fp32", "cross_entropy_fp32", "interval_attention_forward_fp32_64_64",
                   "interval_attention_query_gradient_fp32_64_64", "recurrence_output_fp32",
                   "recurrence_grad_query_fp32"});
}

TEST(ModelOnTheDevicesPath, BFloat16) {
  expect_the_same({.autocast_bf16 = true}, 5e-2,
                  {"rms_norm_fp32_bf16", "rms_norm_grad_fp32_bf16", "silu_product_bf16", "cross_entropy_bf16",
                   "interval_attention_forward_bf16_32_32", "recurrence_output_bf16"});
}

}  // namespace
}  // namespace longreach
