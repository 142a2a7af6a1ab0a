// One sequence over several ranks.
#include <gtest/gtest.h>

#include "core/error.h"
#include "layers/attention/infllm/infllm.h"
#include "tests/support/attention/context_checks.h"
#include "tests/support/mechanism_checks.h"

namespace longreach::test {
namespace {

// Small enough for documents of the cases to have many blocks.
InfllmConfig small() {
  return {.kernel_size = 8, .kernel_stride = 4, .block_size = 16, .num_blocks = 3, .window = 16};
}

TEST(InfllmContext, EqualsOneRank) {
  expect_context_equals_one_rank(small(), small_site(), all_context_cases());
}

TEST(InfllmContext, HeadsEqualOneRank) {
  expect_context_equals_one_rank(small(), small_site(), head_context_cases());
}

TEST(InfllmContext, OverGloo) { expect_context_over_gloo(small(), small_site()); }

TEST(InfllmContext, PlansWhatItSends) {
  InfllmConfig config = small();
  expect_planned_traffic(config, small_site());
  config.num_blocks = 64;
  expect_planned_traffic(config, small_site(), true);
}

// One document, n tokens a rank, in order: a mean of 2 key heads of 8 floats for every 4 tokens.
TEST(InfllmContext, SendsMeansToAllThatComeLater) {
  constexpr int64_t kOwn = 128;
  const auto traffic =
      context_traffic(small(), small_site(), {{0, static_cast<int32_t>(kOwn * 3)}, 3, Balance::none});
  for (int64_t rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(bytes_of(traffic[static_cast<size_t>(rank)].forward, "means of keys"),
              (2 - rank) * kOwn / 4 * 2 * 8 * 4);
    EXPECT_EQ(bytes_of(traffic[static_cast<size_t>(rank)].backward, "means of keys gradients"), 0);
  }
}

TEST(InfllmContext, IsRefusedWhereEarlyQueriesReadAll) {
  InfllmConfig config = small();
  EXPECT_TRUE(config.limitations().empty());
  config.dense_len = 1;
  EXPECT_TRUE(config.limitations().empty()) << "no query has fewer keys than one";
  config.dense_len = 32;
  ASSERT_EQ(config.limitations().size(), 1u);
  EXPECT_EQ(config.limitations()[0].ability, Ability::context_parallel);
}

}  // namespace
}  // namespace longreach::test
