// The device's path of the branches: pooling, scores and choice of blocks, attention over the lists.
#include "tests/models/device_model.h"

namespace longreach::test {
namespace {

TEST(NsaOnTheDevicesPath, BlocksOfBlockAttention) {
  const NsaConfig nsa{
      .compress_block = 16, .compress_stride = 16, .block_size = 16, .num_blocks = 3, .window = 20};
  expect_the_same(device_model({{.layers = "0", .config = nsa}}), {}, 1e-4,
                  {"selection_pool_fp32", "selection_pool_gradient_fp32", "selection_select_fp32_64",
                   "block_attention_forward_16_fp32_64_64"});
}

// Blocks of a size that block attention is not built for: one product a listed block, and the join of them
// all.
TEST(NsaOnTheDevicesPath, BlocksOfAnySize) {
  const NsaConfig nsa{
      .compress_block = 8, .compress_stride = 8, .block_size = 24, .num_blocks = 3, .window = 20};
  const ModelConfig config = device_model({{.layers = "0", .config = nsa}});
  expect_the_same(config, {}, 1e-4, {"merge_join_fp32", "merge_join_gradient_fp32"});
  expect_the_same(config, {.autocast_bf16 = true}, 5e-2, {"merge_join_bf16", "merge_join_gradient_bf16"});
}

}  // namespace
}  // namespace longreach::test
