// S2-Attention: the pattern by hand, and the promises of a mechanism.
#include "layers/attention/s2/s2.h"

#include <gtest/gtest.h>

#include <random>

#include "core/error.h"
#include "layers/attention/attention.h"
#include "tests/support/mechanism_checks.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;

// Blocks of 16 keys: 45 tokens are three blocks, the last one short.
const std::vector<S2Config>& configs() {
  static const std::vector<S2Config> all{
      {.block_size = 16, .local_blocks = 1, .vert_stride = 2},
      {.block_size = 16, .local_blocks = 1, .vert_stride = 3, .head_sliding_offset = 1, .homo_head = true},
      {.block_size = 16, .local_blocks = 1, .vert_stride = 3, .num_dense_heads = 1},
      {.block_size = 16, .local_blocks = 1, .vert_stride = 4, .pattern_per = "query_head", .rope = false},
      {.block_size = 64, .local_blocks = 4}};
  return all;
}

TEST(S2, IsCausal) {
  for (const auto& config : configs()) expect_causal(config, small_site());
}

TEST(S2, DecodesAsForward) {
  for (const auto& config : configs()) expect_decode_equals_forward(config, norm_site());
  expect_decode_equals_forward(configs()[0], norm_site(), 100);
}

TEST(S2, PackedDocumentsAreSeparate) {
  for (const auto& config : configs()) expect_packed_equals_separate(config, norm_site());
}

TEST(S2, FusedIsTheFormula) {
  for (const auto& config : configs()) expect_fused_equals_reference(config, norm_site());
  expect_fused_equals_reference(configs()[0], norm_site(), 130);
}

TEST(S2, BFloat16IsClose) { expect_bfloat16_close(configs()[0], norm_site()); }

std::vector<std::string> drawn(const at::Tensor& mask, int64_t head) {
  std::vector<std::string> rows;
  for (int64_t row = 0; row < mask.size(1); ++row) {
    std::string& line = rows.emplace_back();
    for (int64_t block = 0; block < mask.size(2); ++block)
      line += mask[head][row][block].item<bool>() ? '#' : '.';
  }
  return rows;
}

TEST(S2, ThePatternByHand) {
  const S2Pattern pattern{.block_size = 16, .local_blocks = 2, .vert_stride = 3, .heads = 2};
  const at::Tensor mask = s2_block_mask(pattern, 6);
  EXPECT_EQ(drawn(mask, 0),
            (std::vector<std::string>{"#.....", "##....", "###...", "#.##..", "#..##.", "#..###"}));
  EXPECT_EQ(drawn(mask, 1),
            (std::vector<std::string>{"#.....", "##....", ".##...", "..##..", "..###.", "..#.##"}));
  S2Pattern dense = pattern;
  dense.num_dense_heads = 1;
  EXPECT_EQ(drawn(s2_block_mask(dense, 3), 1), (std::vector<std::string>{"#..", "##.", "###"}));
  S2Pattern both = pattern;
  both.causal = false;
  EXPECT_EQ(drawn(s2_block_mask(both, 6), 0),
            (std::vector<std::string>{"#..#..", "##..#.", ".##..#", "..##..", "#..##.", ".#..##"}));
  EXPECT_EQ(drawn(s2_block_mask(pattern, 6, 4), 0), (std::vector<std::string>{"#..##.", "#..###"}));
}

// Whether no key block comes back once a head has let it go, so that a decoder may forget it. mask: bool
// [heads, rows, blocks] from row 0 on.
bool kv_efficient(const at::Tensor& mask) {
  const auto seen = mask.accessor<bool, 3>();
  for (int64_t head = 0; head < mask.size(0); ++head)
    for (int64_t row = 1; row < mask.size(1); ++row)
      for (int64_t block = 0; block < row; ++block)  // blocks that row - 1 could have read
        if (seen[head][row][block] && !seen[head][row - 1][block]) return false;
  return true;
}

TEST(S2, ListsAreTheMask) {
  std::mt19937 random(5);
  const auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int i = 0; i < 50; ++i) {
    const S2Pattern pattern{.block_size = 16,
                            .local_blocks = draw(1, 4),
                            .local_after = draw(1, 3),
                            .vert_stride = draw(1, 5),
                            .head_sliding_offset = draw(0, 3),
                            .head_sliding_step = draw(0, 3),
                            .heads = draw(1, 4),
                            .causal = draw(0, 1) == 1};
    const int64_t tokens = draw(1, 200), blocks = (tokens + 15) / 16;
    const at::Tensor mask = s2_block_mask(pattern, blocks), lists = s2_lists(pattern, tokens, 0, 16),
                     last = s2_lists(pattern, tokens, tokens - 1, 1);
    ASSERT_EQ(lists.size(2), blocks);
    for (int64_t head = 0; head < pattern.heads; ++head)
      for (int64_t row = 0; row < blocks; ++row)
        for (int64_t block = 0; block < blocks; ++block) {
          const bool kept = (lists[0][head][row] == block).any().item<bool>();
          EXPECT_EQ(kept, mask[head][row][block].item<bool>());
          if (row + 1 == blocks) {
            EXPECT_EQ(kept, (last[0][head][0] == block).any().item<bool>());
          }
        }
    if (pattern.causal) {
      EXPECT_TRUE(kv_efficient(mask));
    }
  }
}

TEST(S2, KeysThatComeBackAreNoticed) {
  S2Pattern relative{.block_size = 16, .local_blocks = 1, .vert_stride = 3, .causal = false};
  EXPECT_FALSE(kv_efficient(s2_block_mask(relative, 6)));
}

TEST(S2, BadConfigs) {
  EXPECT_THROW(s2_pattern({.num_dense_heads = 3}, 4, 2), ConfigError);
  EXPECT_THROW(s2_pattern({.num_dense_heads = 1, .homo_head = true}, 4, 2), ConfigError);
  EXPECT_THROW(s2_pattern({.vert_stride = 0}, 4, 2), ConfigError);
  EXPECT_EQ(s2_pattern({.vert_stride = 8}, 4, 2).head_sliding_step, 2);
  EXPECT_EQ(s2_pattern({.vert_stride = 8, .pattern_per = "query_head"}, 4, 2).heads, 4);
}

TEST(S2, FlopsCountThePattern) {
  const LayerSite site = small_site();
  const S2Config config{.block_size = 16, .local_blocks = 1, .vert_stride = 1000, .head_sliding_offset = 1};
  const auto dense = make_attention(DenseConfig{}, site), local = make_attention(config, site);
  EXPECT_EQ(local->flops_per_token(16), dense->flops_per_token(16));
  // Every block alone: what 16 tokens cost, whatever the length.
  EXPECT_EQ(local->flops_per_token(160), dense->flops_per_token(16));
}

}  // namespace
}  // namespace longreach
