// One sequence over several ranks.
#include <gtest/gtest.h>

#include "layers/attention/lightning/lightning.h"
#include "tests/support/attention/context_checks.h"
#include "tests/support/mechanism_checks.h"

namespace longreach::test {
namespace {

// Sums are rounded once, as on one rank. The gradient of theta has terms of queries and keys that grow with
// the position, and cancel.
const ContextTolerance kRounding{.same_bits = false, .by_entry = true};

// With decays and without, in two forms; and the form with a rotary embedding.
const LightningConfig kDecaying, kWithout{.form = "minimax", .decay = "none", .lrpe = "on", .chunk = 32},
    kTurned{.form = "hypenet"};

// One document, rows of a batch, packed documents of odd lengths, of one token, of none, and over four ranks.
TEST(LightningContext, EqualsOneRank) {
  const auto cases = context_cases_of({{0, 1},
                                       {0, 63},
                                       {0, 150},
                                       {0, 400},
                                       {0, 130, 260, 390},
                                       {0, 3, 3, 140, 250, 271, 272, 400},
                                       {0, 1, 2, 3},
                                       {0, 30, 390, 400}});
  for (const LightningConfig& config : {kDecaying, kWithout, kTurned})
    expect_context_equals_one_rank(config, small_site(), cases, kRounding);
}

// Angles depend on the length of the whole document, whoever owns its end.
TEST(LightningContext, DynamicAnglesAreThoseOfTheWholeDocument) {
  LayerSite site = small_site();
  site.rope = {.rope_type = "dynamic", .factor = 4.0, .original_max_position_embeddings = 60};
  expect_context_equals_one_rank(kTurned, site, context_cases_of({{0, 30, 390, 400}}), kRounding);
}

TEST(LightningContext, LongRowsRoundAsOnOneRank) {
  const auto cases = context_cases_of({{0, 1500}, {0, 3, 3, 410, 777, 1009, 1010, 1500}});
  for (const LightningConfig& config : {kDecaying, kWithout})
    expect_context_rounds_as_one_rank(config, small_site(), cases, kRounding);
}

TEST(LightningContext, EightSpansARank) {
  const ContextCase a_case{
      {0, 26, 571, 605, 863, 1083, 1087, 1122, 1124, 1140, 1316, 1529}, 3, Balance::ptrr};
  EXPECT_EQ(SequenceLayout(a_case.cu_seqlens, 3, 64, a_case.balance, causal_pairs).spans().size(), 24U);
  expect_context_equals_one_rank(kDecaying, small_site(), {a_case}, kRounding);
}

TEST(LightningContext, HeadsEqualOneRank) {
  for (const LightningConfig& config : {kDecaying, kWithout, kTurned})
    expect_context_equals_one_rank(config, small_site(), head_context_cases(), kRounding);
}

TEST(LightningContext, RecomputedItHasTheSameBits) { expect_context_recomputes(kDecaying, small_site()); }

TEST(LightningContext, OverGloo) { expect_context_over_gloo(kDecaying, small_site(), kRounding); }

// What is sent is the closed formula of layers/attention/common/context/scan.h, to the byte, whatever the
// length: for one document in as many spans as ranks, at rank 0, (P - 1) / P H (2 Dk Dv + 1) numbers; at
// none two states.
TEST(LightningContext, SendsStatesAlone) {
  const int64_t heads = small_site().num_heads, dk = 2 * small_site().head_dim, dv = small_site().head_dim;
  for (const int ranks : {2, 3, 4})
    for (const int32_t tokens : {2048, 32768}) {
      if (ranks == 3 && tokens > 2048) continue;
      SCOPED_TRACE(::testing::Message() << ranks << " ranks, " << tokens << " tokens");
      const auto traffic = context_traffic(kDecaying, small_site(), {{0, tokens}, ranks, Balance::none});
      for (int64_t rank = 0; rank < ranks; ++rank) {
        const int64_t mine = heads * (rank + 1) / ranks - heads * rank / ranks,
                      leaving = rank + 1 < ranks ? 1 : 0, entering = rank > 0 ? 1 : 0, all = ranks - 1;
        const int64_t there = leaving * (heads - mine) * (dk * dv + 1) + (all - entering) * mine * dk * dv,
                      back = entering * (heads - mine) * dk * dv + (all - leaving) * mine * dk * dv;
        const auto& [forward, backward] = traffic[static_cast<size_t>(rank)];
        EXPECT_EQ(bytes_of(forward, "lightning"), 4 * there);
        EXPECT_EQ(bytes_of(backward, "lightning.backward"), 4 * back);
        EXPECT_EQ(forward.size(), 1U);
        EXPECT_EQ(backward.size(), 1U);
        EXPECT_LT(std::max(there, back), 2 * heads * dk * dv);
        if (rank == 0 && heads % ranks == 0) {
          EXPECT_EQ(there, (ranks - 1) * heads / ranks * (2 * dk * dv + 1));
        }
      }
    }
}

}  // namespace
}  // namespace longreach::test
