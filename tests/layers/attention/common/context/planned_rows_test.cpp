// Every kind says what it would send of a row that ranks share.
#include "layers/attention/planned_traffic.h"

#include <gtest/gtest.h>

#include "distributed/absent_rank.h"
#include "tests/support/attention/context_checks.h"
#include "tests/support/mechanism_checks.h"

namespace longreach::test {
namespace {

// By its defaults; the kinds' own tests have blocks and windows that documents of the cases have many of.
TEST(PlannedTraffic, IsWhatEveryKindSends) {
  for (const AttentionConfig& config : all_attention_configs()) expect_planned_traffic(config, small_site());
}

TEST(PlannedTraffic, OfARankThatIsNotHereIsNotSent) {
  const Group rank = absent_rank(2, 64);
  EXPECT_EQ(rank->rank(), 2);
  EXPECT_EQ(rank->size(), 64);
  EXPECT_EQ(rank->split({1, 2})->rank(), 1);
  EXPECT_THROW(rank->barrier("step"), std::logic_error);
}

}  // namespace
}  // namespace longreach::test
