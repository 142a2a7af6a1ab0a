// One sequence over several ranks.
#include <gtest/gtest.h>

#include "layers/attention/s2/s2.h"
#include "tests/support/attention/context_checks.h"
#include "tests/support/mechanism_checks.h"

namespace longreach::test {
namespace {

const S2Config kConfig{.block_size = 64, .local_blocks = 1, .vert_stride = 3};

TEST(S2Context, EqualsOneRank) { expect_context_equals_one_rank(kConfig, small_site(), all_context_cases()); }

TEST(S2Context, OverGloo) { expect_context_over_gloo(kConfig, small_site()); }

TEST(S2Context, OtherPatternsEqualOneRank) {
  for (const S2Config& config :
       {S2Config{.block_size = 16, .local_blocks = 2, .vert_stride = 5, .pattern_per = "query_head"},
        S2Config{.block_size = 32, .local_blocks = 1, .vert_stride = 4, .num_dense_heads = 1}})
    expect_context_equals_one_rank(config, small_site());
}

TEST(S2Context, HeadsEqualOneRank) {
  for (const S2Config& config :
       {kConfig, S2Config{.block_size = 16, .local_blocks = 2, .vert_stride = 5, .pattern_per = "query_head"},
        S2Config{.block_size = 32, .local_blocks = 1, .vert_stride = 4, .homo_head = true}})
    expect_context_equals_one_rank(config, small_site(), head_context_cases());
}

// One document, n tokens a rank, in order; bytes of a token's keys and values in float32.
constexpr int64_t kOwn = 128, kRow = 2 * 2 * 8 * 4;

// Of blocks of 64 every third is read, by the one pattern that there is, and the query's own.
TEST(S2Context, SendsTheBlocksOfThePattern) {
  const S2Config config{.block_size = 64, .local_blocks = 1, .vert_stride = 3, .homo_head = true};
  for (const int ranks : {2, 3, 4}) {
    const auto traffic = context_traffic(config, small_site(),
                                         {{0, static_cast<int32_t>(kOwn * ranks)}, ranks, Balance::none});
    for (int64_t rank = 0; rank < ranks; ++rank) {
      int64_t named = 0;
      for (const int64_t block : {2 * rank, 2 * rank + 1}) named += block % 3 == 0 ? 64 : 0;
      EXPECT_EQ(bytes_of(traffic[static_cast<size_t>(rank)].forward, "keys"),
                (ranks - 1 - rank) * named * kRow);
      EXPECT_EQ(bytes_of(traffic[static_cast<size_t>(rank)].backward, "keys"),
                (ranks - 1 - rank) * named * kRow);
    }
  }
}

TEST(S2Context, PlansWhatItSends) {
  expect_planned_traffic(S2Config{.block_size = 16, .local_blocks = 2, .vert_stride = 3}, small_site());
}

}  // namespace
}  // namespace longreach::test
