// One sequence over several ranks.
#include <gtest/gtest.h>

#include "layers/attention/nsa/nsa.h"
#include "tests/support/attention/context_checks.h"
#include "tests/support/mechanism_checks.h"

namespace longreach::test {
namespace {

// Small enough for documents of the cases to have many windows and blocks.
NsaConfig small(const std::string& layout, const std::string& compress) {
  NsaConfig config{.layout = layout, .compress = compress};
  config.compress_block = 32, config.compress_stride = 16;
  config.block_size = 16;
  config.num_blocks = 4, config.first_blocks = 1, config.latest_blocks = 2;
  config.window = 40;
  return config;
}

const ContextTolerance kBits{.neutral = "g_proj"}, kRounding{.same_bits = false};

TEST(NsaContext, EqualsOneRank) {
  expect_context_equals_one_rank(small("fla", "mean"), small_site(), all_context_cases(), kBits);
}

TEST(NsaContext, OverGloo) { expect_context_over_gloo(small("fla", "linear"), small_site()); }

// Gates, and products in a library of what is not coarse: bits depend on how many tokens there are.
TEST(NsaContext, LearnedCompressionEqualsOneRank) {
  for (const char* compress : {"weighted", "linear", "mlp"}) {
    SCOPED_TRACE(compress);
    expect_context_equals_one_rank(small("fla", compress), small_site(), some_context_cases(), kRounding);
  }
}

TEST(NsaContext, TheOtherLayoutsEqualOneRank) {
  expect_context_equals_one_rank(small("xunhaolai", "mean"), small_site(), some_context_cases(), kBits);
  expect_context_equals_one_rank(small("lucidrains", "mean"), small_site(), all_context_cases(), kRounding);
}

// Windows that do not overlap, and blocks that block attention has no tiles for: they are read as intervals,
// whose tiles begin elsewhere when some blocks are left out.
TEST(NsaContext, OtherSizesEqualOneRank) {
  NsaConfig config = small("fla", "mean");
  config.compress_block = config.compress_stride = config.block_size = 24;
  expect_context_equals_one_rank(config, small_site(), some_context_cases(), kRounding);
}

TEST(NsaContext, HeadsEqualOneRank) {
  expect_context_equals_one_rank(small("fla", "mean"), small_site(), head_context_cases(), kBits);
  for (const char* compress : {"weighted", "linear"}) {
    SCOPED_TRACE(compress);
    expect_context_equals_one_rank(small("xunhaolai", compress), small_site(), head_context_cases(),
                                   kRounding);
  }
  expect_context_equals_one_rank(small("lucidrains", "mlp"), small_site(), head_context_cases(), kRounding);
}

// One document, n tokens a rank, in order; bytes of a token's keys and values in float32.
constexpr int64_t kOwn = 128, kRow = 2 * 2 * 8 * 4;

// 16 tokens of the window that straddles a border, compressed keys to all that come later, a bit a block to
// all; the chosen blocks and the window of 40 (64 in whole tiles) are both `keys`.
TEST(NsaContext, SendsWindowsBitsAndChosenBlocks) {
  for (const int ranks : {2, 3, 4})
    for (const bool all : {false, true}) {
      NsaConfig config = small("fla", "mean");
      config.num_blocks = all ? 64 : 1;
      config.first_blocks = 0, config.latest_blocks = 1;
      const auto traffic = context_traffic(config, small_site(),
                                           {{0, static_cast<int32_t>(kOwn * ranks)}, ranks, Balance::none});
      for (int64_t rank = 0; rank < ranks; ++rank) {
        const auto& [forward, backward] = traffic[static_cast<size_t>(rank)];
        const int64_t later = ranks - 1 - rank, next = later > 0 ? 1 : 0;
        const int64_t windows = kOwn / 16 - (rank == 0 ? 1 : 0);  // the first is complete after 32 tokens
        const int64_t keys = ((all ? later * kOwn : 0) + next * 64) * kRow;
        EXPECT_EQ(bytes_of(forward, "tokens of windows"), next * 16 * kRow);
        EXPECT_EQ(bytes_of(forward, "compressed keys"), later * windows * kRow);
        EXPECT_EQ(bytes_of(forward, "chosen blocks"), (ranks - 1) * kOwn * ranks / 16 / 8);
        EXPECT_EQ(bytes_of(forward, "keys"), keys);
        EXPECT_EQ(bytes_of(backward, "keys"), keys);
        EXPECT_EQ(bytes_of(backward, "tokens of windows gradients"), rank > 0 ? 16 * kRow : 0);
        EXPECT_EQ(bytes_of(backward, "compressed keys gradients"),
                  rank > 0 ? (rank * kOwn / 16 - 1) * kRow : 0);
      }
    }
}

TEST(NsaContext, PlansWhatItSends) {
  NsaConfig config = small("fla", "mean");
  expect_planned_traffic(config, small_site());
  config.num_blocks = 64;
  expect_planned_traffic(config, small_site(), true);
  config.compress_block = config.compress_stride = 16;
  expect_planned_traffic(config, small_site(), true);
}

}  // namespace
}  // namespace longreach::test
