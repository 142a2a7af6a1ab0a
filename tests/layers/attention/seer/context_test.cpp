// One sequence over several ranks.
#include <gtest/gtest.h>

#include "layers/attention/seer/seer.h"
#include "tests/support/attention/context_checks.h"
#include "tests/support/mechanism_checks.h"

namespace longreach::test {
namespace {

SeerConfig small(const std::string& mode, const std::string& form) {
  SeerConfig config{.mode = mode, .form = form};
  config.block_size = 16, config.gate_hidden = 8;
  config.token_budget = 64;
  return config;
}

TEST(SeerContext, SparseEqualsOneRank) {
  expect_context_equals_one_rank(small("sparse", "decode"), small_site(), all_context_cases());
  expect_context_equals_one_rank(small("sparse", "prefill"), small_site());
}

TEST(SeerContext, OverGloo) { expect_context_over_gloo(small("sparse", "decode"), small_site()); }

TEST(SeerContext, DistillingEqualsOneRank) {
  for (const char* form : {"decode", "prefill"}) {
    SCOPED_TRACE(form);
    expect_context_equals_one_rank(small("distill", form), small_site());
  }
}

// What a document's whole length decides: budgets by density, the rows at its end; and angles.
TEST(SeerContext, OtherRulesEqualOneRank) {
  LayerSite site = norm_site();
  site.rope.rope_type = "dynamic";
  site.rope.factor = 4.0;
  site.rope.original_max_position_embeddings = 60;
  for (const char* form : {"decode", "prefill"})
    for (const char* selection : {"density", "threshold"}) {
      if (form == std::string("decode") && selection == std::string("density")) continue;  // it has none
      SCOPED_TRACE(std::string(form) + " " + selection);
      SeerConfig config = small("sparse", form);
      config.selection = selection;
      config.density = 0.4, config.threshold = 0.1;
      expect_context_equals_one_rank(config, site);
    }
}

TEST(SeerContext, HeadsEqualOneRank) {
  for (const char* mode : {"sparse", "distill", "dense"})
    for (const char* form : {"decode", "prefill"}) {
      SCOPED_TRACE(std::string(mode) + " " + form);
      expect_context_equals_one_rank(small(mode, form), small_site(), head_context_cases());
    }
}

TEST(SeerContext, DenseEqualsOneRank) {
  expect_context_equals_one_rank(small("dense", "decode"), small_site());
}

// One document, n tokens a rank, in order; bytes of a token's keys and values in float32.
constexpr int64_t kOwn = 128, kRow = 2 * 2 * 8 * 4;

// Keys of the gate (8 features a key head and block) to all that come later, a bit a block to all, and the
// blocks that somebody chose.
TEST(SeerContext, SendsKeysOfTheGateBitsAndChosenBlocks) {
  for (const int ranks : {2, 3, 4})
    for (const bool all : {false, true}) {
      SeerConfig config = small("sparse", "decode");
      config.selection = "threshold";
      config.threshold = all ? 0.0 : 1.0;
      const auto traffic = context_traffic(config, small_site(),
                                           {{0, static_cast<int32_t>(kOwn * ranks)}, ranks, Balance::none});
      for (int64_t rank = 0; rank < ranks; ++rank) {
        const auto& [forward, backward] = traffic[static_cast<size_t>(rank)];
        const int64_t later = ranks - 1 - rank, of_gate = kOwn / 16 * 2 * 8 * 4;
        EXPECT_EQ(bytes_of(forward, "keys of the gate"), later * of_gate);
        EXPECT_EQ(bytes_of(forward, "chosen blocks"), (ranks - 1) * kOwn * ranks / 16 / 8);
        EXPECT_EQ(bytes_of(forward, "keys"), all ? later * kOwn * kRow : 0);
        EXPECT_EQ(bytes_of(backward, "keys of the gate gradients"), rank * of_gate);
        EXPECT_EQ(bytes_of(backward, "keys gradients"), all ? rank * kOwn * kRow : 0);
      }
    }
}

// Distilling, dense attention fetches keys and values, and the truth keys once more.
TEST(SeerContext, DistillingSendsKeysOfTheTruth) {
  const auto traffic =
      context_traffic(small("distill", "decode"), small_site(), {{0, 3 * kOwn}, 3, Balance::none});
  for (int64_t rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(bytes_of(traffic[static_cast<size_t>(rank)].forward, "keys"), (2 - rank) * kOwn * kRow);
    EXPECT_EQ(bytes_of(traffic[static_cast<size_t>(rank)].forward, "keys of the truth"),
              (2 - rank) * kOwn * kRow / 2);
  }
}

TEST(SeerContext, PlansWhatItSends) {
  for (const char* form : {"decode", "prefill"})
    for (const char* mode : {"dense", "sparse", "distill"})
      expect_planned_traffic(small(mode, form), small_site());
  SeerConfig all = small("sparse", "decode");
  all.selection = "threshold", all.threshold = 0.0, all.gate_loss = false;
  expect_planned_traffic(all, small_site(), true);
}

}  // namespace
}  // namespace longreach::test
