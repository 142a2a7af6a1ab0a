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

TEST(DenseContext, GatesOwnTokens) {
  expect_context_equals_one_rank(DenseConfig{.output_gate = true}, small_site(), head_context_cases());
}

TEST(DenseContext, OverGloo) { expect_context_over_gloo(DenseConfig{}, norm_site()); }

TEST(DenseContext, HeadsEqualOneRank) {
  expect_context_equals_one_rank(DenseConfig{}, norm_site(), head_context_cases());
}

// Three kv heads among two ranks.
TEST(DenseContext, UnequalSharesOfHeadsEqualOneRank) {
  LayerSite site = small_site();
  site.num_heads = 6, site.num_kv_heads = 3;
  expect_context_equals_one_rank(DenseConfig{}, site, head_context_cases());
}

// Angles depend on the length of the whole document, whoever owns its end.
TEST(DenseContext, DynamicAnglesAreThoseOfTheWholeDocument) {
  LayerSite site = small_site();
  site.rope.rope_type = "dynamic";
  site.rope.factor = 4.0;
  site.rope.original_max_position_embeddings = 60;
  expect_context_equals_one_rank(DenseConfig{}, site);
}

// One document, n tokens a rank, in order; bytes of a token's keys and values in float32.
constexpr int64_t kOwn = 128, kRow = 2 * 2 * 8 * 4;

// Forward every later rank fetches a rank's keys; backward again, and each sends back what it has fetched.
TEST(DenseContext, SendsWhatLaterRanksRead) {
  for (const int ranks : {2, 3, 4}) {
    const auto traffic = context_traffic(DenseConfig{}, small_site(),
                                         {{0, static_cast<int32_t>(kOwn * ranks)}, ranks, Balance::none});
    for (int64_t rank = 0; rank < ranks; ++rank) {
      const auto& [forward, backward] = traffic[static_cast<size_t>(rank)];
      const int64_t later = (ranks - 1 - rank) * kOwn * kRow;
      EXPECT_EQ(bytes_of(forward, "keys"), later);
      EXPECT_EQ(bytes_of(backward, "keys"), later);
      EXPECT_EQ(bytes_of(backward, "keys gradients"), rank * kOwn * kRow);
    }
  }
}

// Two ranks of as many tokens, with a kv head each: of half of the heads q, k and v go there, and o comes
// back. Four ranks by twos: the same between neighbours, and the keys of one head between pairs of them.
TEST(DenseContext, SendsHeadsOfOwnTokens) {
  const int64_t q = 4 * 8 * 4;
  for (const int ranks : {2, 4}) {
    const auto traffic =
        context_traffic(DenseConfig{}, small_site(),
                        {{0, static_cast<int32_t>(kOwn * ranks)}, ranks, Balance::none, /*neighbours=*/2});
    for (int64_t rank = 0; rank < ranks; ++rank) {
      const auto& [forward, backward] = traffic[static_cast<size_t>(rank)];
      EXPECT_EQ(bytes_of(forward, "tokens to heads"), kOwn * (q + kRow) / 2);
      EXPECT_EQ(bytes_of(forward, "heads to tokens"), kOwn * q / 2);
      EXPECT_EQ(bytes_of(backward, "tokens to heads gradients"), kOwn * (q + kRow) / 2);
      EXPECT_EQ(bytes_of(backward, "heads to tokens gradients"), kOwn * q / 2);
      EXPECT_EQ(bytes_of(forward, "keys"), ranks == 4 && rank < 2 ? 2 * kOwn * kRow / 2 : 0);
      EXPECT_EQ(bytes_of(backward, "keys gradients"), ranks == 4 && rank >= 2 ? 2 * kOwn * kRow / 2 : 0);
    }
  }
}

}  // namespace
}  // namespace longreach::test
