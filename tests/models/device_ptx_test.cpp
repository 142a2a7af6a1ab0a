// A whole model on the device's path, loss and every gradient, each kernel interpreted: the same numbers as on the CPU, and no
// part of a layer left to another path.
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "models/transformer.h"
#include "tests/layers/ops/cuda/interpreted_device.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;

ModelConfig small_model(const std::vector<AttentionEntry>& attention) {
  ModelConfig config;
  config.hidden_size = 48;
  config.num_hidden_layers = static_cast<int64_t>(attention.size());
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.intermediate_size = 56;
  config.initializer_range = 0.2;
  config.qk_norm = true;
  config.head_dim = 16;
  config.attention = attention;
  config.resolve(50);
  return config;
}

ModelConfig three_mechanisms() {
  return small_model({{.layers = "0", .config = DenseConfig{}},
                      {.layers = "1", .config = SlidingConfig{.window = 20, .sinks = 1}},
                      {.layers = "2", .config = LightningConfig{}}});
}

// Those that read lists of blocks, chosen or given.
ModelConfig block_mechanisms() {
  NsaConfig nsa{.compress_block = 16, .compress_stride = 16, .block_size = 16, .num_blocks = 3, .window = 20};
  SeerConfig seer{.block_size = 16, .gate_hidden = 16, .selection = "top_k", .top_k = 2};
  return small_model(
      {{.layers = "0", .config = nsa},
       {.layers = "1", .config = seer},
       {.layers = "2", .config = BiformerConfig{.region = 16, .topk = 2}},
       {.layers = "3", .config = S2Config{.block_size = 16, .local_blocks = 1, .vert_stride = 2}}});
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

// Returns how often each kernel ran.
std::map<std::string, int> expect_the_same(const ModelConfig& config, const LossOptions& options,
                                           double limit, const std::vector<std::string>& kernels) {
  Transformer on_host(config, 5);
  const Pass wanted = train_once(on_host, options);
  InterpretedDevice device;
  Transformer on_device(config, 5);
  const Pass found = train_once(on_device, options);
  EXPECT_NEAR(found.loss, wanted.loss, limit * wanted.loss);
  EXPECT_EQ(found.gradients.size(), wanted.gradients.size());
  for (const auto& [name, gradient] : wanted.gradients) {
    const at::Tensor& own = found.gradients.at(name);
    EXPECT_EQ(own.defined(), gradient.defined()) << name;
    if (own.defined() && gradient.defined()) {
      EXPECT_LE(relative_error(own, gradient), limit) << name;
    }
  }
  for (const std::string& kernel : kernels)
    EXPECT_TRUE(device.runs().contains(kernel)) << kernel << " was not run";
  return device.runs();
}

// cos and sin are gathered once a pass; each of the two layers with positions turns q and k.
TEST(ModelOnTheDevicesPath, Float32) {
  const auto runs = expect_the_same(
      three_mechanisms(), {}, 1e-4,
      {"rms_norm_fp32_fp32", "rms_norm_grad_fp32_fp32", "silu_product_fp32", "silu_product_grad_fp32",
       "cross_entropy_fp32", "interval_attention_forward_fp32_64_64",
       "interval_attention_query_gradient_fp32_64_64", "recurrence_output_fp32",
       "recurrence_grad_query_fp32"});
  EXPECT_EQ(runs.at("rotary_halves_fp32"), 8);
}

TEST(ModelOnTheDevicesPath, BFloat16) {
  const auto runs = expect_the_same(
      three_mechanisms(), {.autocast_bf16 = true}, 5e-2,
      {"rms_norm_fp32_bf16", "rms_norm_grad_fp32_bf16", "silu_product_bf16", "cross_entropy_bf16",
       "interval_attention_forward_bf16_32_32", "recurrence_output_bf16"});
  EXPECT_EQ(runs.at("rotary_halves_bf16"), 8);
}

// Blocks of a size that block attention is not built for: one product a listed block, and the join of them all.
TEST(ModelOnTheDevicesPath, NsaBlocksOfAnySize) {
  const NsaConfig nsa{
      .compress_block = 8, .compress_stride = 8, .block_size = 24, .num_blocks = 3, .window = 20};
  const ModelConfig config = small_model({{.layers = "0", .config = nsa}});
  expect_the_same(config, {}, 1e-4, {"merge_join_fp32", "merge_join_gradient_fp32"});
  expect_the_same(config, {.autocast_bf16 = true}, 5e-2, {"merge_join_bf16", "merge_join_gradient_bf16"});
}

// NSA, SeerAttention, BiFormer and S2: pooling, scores and choice of blocks, attention over the lists.
TEST(ModelOnTheDevicesPath, MechanismsOfBlocks) {
  expect_the_same(block_mechanisms(), {}, 1e-4,
                  {"selection_pool_fp32", "selection_pool_gradient_fp32", "selection_select_fp32_64",
                   "block_attention_forward_16_fp32_64_64", "block_attention_forward_64_fp32_64_64"});
}

}  // namespace
}  // namespace longreach
