// One sequence over several ranks.
#include <gtest/gtest.h>

#include "layers/attention/biformer/biformer.h"
#include "tests/support/attention/context_checks.h"
#include "tests/support/mechanism_checks.h"

namespace longreach::test {
namespace {

TEST(BiformerContext, EqualsOneRank) {
  expect_context_equals_one_rank(BiformerConfig{.region = 64, .topk = 2}, small_site(), all_context_cases());
}

TEST(BiformerContext, SmallRegionsEqualOneRank) {
  expect_context_equals_one_rank(BiformerConfig{.region = 16, .topk = 4}, small_site());
}

TEST(BiformerContext, HeadsEqualOneRank) {
  expect_context_equals_one_rank(BiformerConfig{.region = 16, .topk = 4}, small_site(), head_context_cases());
}

TEST(BiformerContext, OverGloo) {
  expect_context_over_gloo(BiformerConfig{.region = 16, .topk = 4}, small_site());
}

// One document, n tokens a rank, in order; bytes of a token's keys and values in float32.
constexpr int64_t kOwn = 128, kRow = 2 * 2 * 8 * 4;

// Means of keys to all that come later, a bit a region to all, and the keys of chosen regions: none when a
// region may read its own alone, all when it may read as many as there are.
TEST(BiformerContext, SendsMeansBitsAndChosenRegions) {
  for (const int ranks : {2, 3, 4})
    for (const int64_t topk : {1, 64}) {
      const auto traffic = context_traffic(BiformerConfig{.region = 16, .topk = topk}, small_site(),
                                           {{0, static_cast<int32_t>(kOwn * ranks)}, ranks, Balance::none});
      for (int64_t rank = 0; rank < ranks; ++rank) {
        const auto& [forward, backward] = traffic[static_cast<size_t>(rank)];
        const int64_t later = ranks - 1 - rank, chosen = topk == 1 ? 0 : later * kOwn * kRow;
        EXPECT_EQ(bytes_of(forward, "means of regions"), later * kOwn / 16 * kRow / 2);
        EXPECT_EQ(bytes_of(forward, "chosen blocks"), (ranks - 1) * kOwn * ranks / 16 / 8);
        EXPECT_EQ(bytes_of(forward, "keys"), chosen);
        EXPECT_EQ(bytes_of(backward, "keys"), chosen);
        EXPECT_EQ(bytes_of(backward, "keys gradients"), topk == 1 ? 0 : rank * kOwn * kRow);
      }
    }
}

TEST(BiformerContext, PlansWhatItSends) {
  expect_planned_traffic(BiformerConfig{.region = 16, .topk = 1}, small_site());
  expect_planned_traffic(BiformerConfig{.region = 16, .topk = 64}, small_site(), true);
}

}  // namespace
}  // namespace longreach::test
