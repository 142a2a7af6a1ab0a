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

TEST(SlidingContext, OverGloo) {
  expect_context_over_gloo(SlidingConfig{.window = 100, .sinks = 3}, small_site());
}

}  // namespace
}  // namespace longreach::test
