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

}  // namespace
}  // namespace longreach::test
