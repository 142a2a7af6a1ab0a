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

TEST(BiformerContext, OverGloo) {
  expect_context_over_gloo(BiformerConfig{.region = 16, .topk = 4}, small_site());
}

}  // namespace
}  // namespace longreach::test
