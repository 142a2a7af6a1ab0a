// Heads of lightning attention shared out among ranks.
#include <gtest/gtest.h>

#include "layers/attention/lightning/lightning.h"
#include "tests/support/attention/context_checks.h"
#include "tests/support/mechanism_checks.h"

namespace longreach::test {
namespace {

TEST(LightningContext, HeadsEqualOneRank) {
  for (const char* form : {"transnormer", "minimax"}) {
    SCOPED_TRACE(form);
    expect_context_equals_one_rank(LightningConfig{.form = form, .chunk = 16}, small_site(),
                                   head_context_cases(), {.same_bits = false});
  }
}

}  // namespace
}  // namespace longreach::test
