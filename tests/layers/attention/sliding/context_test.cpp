// One sequence over several ranks.
#include <gtest/gtest.h>

#include "layers/attention/sliding/sliding.h"
#include "tests/support/attention/context_checks.h"
#include "tests/support/mechanism_checks.h"

namespace longreach::test {
namespace {

TEST(SlidingContext, EqualsOneRank) {
  expect_context_equals_one_rank(SlidingConfig{.window = 100, .sinks = 3}, small_site(), all_context_cases());
}

TEST(SlidingContext, OtherWindowsEqualOneRank) {
  for (const SlidingConfig& config :
       {SlidingConfig{.window = 1}, SlidingConfig{.window = 65}, SlidingConfig{.window = 20, .sinks = 70}})
    expect_context_equals_one_rank(config, small_site());
}

TEST(SlidingContext, HeadsEqualOneRank) {
  expect_context_equals_one_rank(SlidingConfig{.window = 100, .sinks = 3}, small_site(),
                                 head_context_cases());
}

TEST(SlidingContext, OverGloo) {
  expect_context_over_gloo(SlidingConfig{.window = 100, .sinks = 3}, small_site());
}

// One document, n tokens a rank, in order; bytes of a token's keys and values in float32.
constexpr int64_t kOwn = 128, kRow = 2 * 2 * 8 * 4;

// A window of 100 before a span needs 128 keys in whole tiles, and 64 for the 3 sinks.
TEST(SlidingContext, SendsTheWindowAndTheSinks) {
  for (const int ranks : {2, 3, 4}) {
    const auto traffic = context_traffic(SlidingConfig{.window = 100, .sinks = 3}, small_site(),
                                         {{0, static_cast<int32_t>(kOwn * ranks)}, ranks, Balance::none});
    for (int64_t rank = 0; rank < ranks; ++rank) {
      const auto& [forward, backward] = traffic[static_cast<size_t>(rank)];
      const int64_t windows = rank + 1 < ranks ? 128 : 0, sinks = rank == 0 ? 64 * (ranks - 2) : 0;
      EXPECT_EQ(bytes_of(forward, "keys"), (windows + sinks) * kRow);
      EXPECT_EQ(bytes_of(backward, "keys"), (windows + sinks) * kRow);
      EXPECT_EQ(bytes_of(backward, "keys gradients"), rank == 0 ? 0 : (128 + (rank > 1 ? 64 : 0)) * kRow);
    }
  }
}

TEST(SlidingContext, PlansWhatItSends) {
  expect_planned_traffic(SlidingConfig{.window = 100, .sinks = 3}, small_site());
}

}  // namespace
}  // namespace longreach::test
