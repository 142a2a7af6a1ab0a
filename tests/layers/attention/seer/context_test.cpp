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

TEST(SeerContext, DenseEqualsOneRank) {
  expect_context_equals_one_rank(small("dense", "decode"), small_site());
}

}  // namespace
}  // namespace longreach::test
