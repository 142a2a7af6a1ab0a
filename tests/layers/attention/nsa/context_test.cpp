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

}  // namespace
}  // namespace longreach::test
