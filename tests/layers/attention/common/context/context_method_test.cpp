// Which way a layer goes through a row that ranks share.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/support/attention/context_checks.h"
#include "tests/support/mechanism_checks.h"

namespace longreach::test {
namespace {

int64_t sent_by_all(const AttentionConfig& config, const LayerSite& site, ContextCase a_case,
                    int neighbours) {
  a_case.neighbours = neighbours;
  int64_t bytes = 0;
  for (const ContextTraffic& traffic : context_traffic(config, site, a_case, at::kBFloat16))
    for (const Traffic* pass : {&traffic.forward, &traffic.backward})
      for (const auto& [label, moved] : *pass) bytes += moved.bytes;
  return bytes;
}

// As many key heads as heads, or one for all; one document, or documents that fit on a rank: each way is the
// best somewhere.
TEST(ContextMethod, AutomaticSendsWhatTheBestWaySends) {
  LayerSite many = small_site(), few = small_site();
  many.num_kv_heads = 4;
  few.num_heads = 16, few.num_kv_heads = 2;
  const ContextCase whole{{0, 1024}, 4, Balance::headtail}, apart{{0, 256, 512, 768, 1024}, 4, Balance::none};
  std::set<int> best;
  for (const LayerSite& site : {many, few})
    for (const ContextCase& a_case : {whole, apart}) {
      std::map<int64_t, int> ways;
      for (const int neighbours : {1, 2, 4})
        if (neighbours <= site.num_kv_heads)
          ways.try_emplace(sent_by_all(make_attention_config("dense"), site, a_case, neighbours), neighbours);
      EXPECT_EQ(sent_by_all(make_attention_config("dense"), site, a_case, 0), ways.begin()->first);
      best.insert(ways.begin()->second);
    }
  EXPECT_GE(best.size(), 2u);
}

TEST(ContextMethod, AutomaticEqualsOneRank) {
  for (const AttentionConfig& config : all_attention_configs()) {
    SCOPED_TRACE(kind_of(config));
    expect_context_equals_one_rank(config, small_site(), {{{0, 37, 338, 403, 700}, 2, Balance::ptrr, 0}},
                                   {.same_bits = false});
  }
}

}  // namespace
}  // namespace longreach::test
