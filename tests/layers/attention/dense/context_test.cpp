// One sequence over several ranks.
#include <gtest/gtest.h>

#include "layers/attention/dense/dense.h"
#include "tests/support/attention/context_checks.h"
#include "tests/support/mechanism_checks.h"

namespace longreach::test {
namespace {

TEST(DenseContext, EqualsOneRank) {
  expect_context_equals_one_rank(DenseConfig{}, norm_site(), all_context_cases());
}

TEST(DenseContext, OverGloo) { expect_context_over_gloo(DenseConfig{}, norm_site()); }

// Angles depend on the length of the whole document, whoever owns its end.
TEST(DenseContext, DynamicAnglesAreThoseOfTheWholeDocument) {
  LayerSite site = small_site();
  site.rope.rope_type = "dynamic";
  site.rope.factor = 4.0;
  site.rope.original_max_position_embeddings = 60;
  expect_context_equals_one_rank(DenseConfig{}, site);
}

}  // namespace
}  // namespace longreach::test
