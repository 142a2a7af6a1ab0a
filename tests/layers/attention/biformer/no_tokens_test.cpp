// Routing and attention without a token.
#include "tests/support/no_tokens.h"
#include "layers/attention/biformer/biformer.h"

namespace longreach::test {
namespace {

TEST(NoTokens, Biformer) {
  for (const auto implementation : {Implementation::fused, Implementation::reference})
    for (const auto query : {BiformerRouting::Query::mean, BiformerRouting::Query::first})
      for (const bool causal : {false, true})
        expect_nothing(implementation == Implementation::fused ? at::kFloat : at::kDouble,
                       [&](const Nothing& in) -> Results {
                         const BiformerRouting routing{
                             .region = 16, .topk = 2, .causal = causal, .query = query};
                         const BiformerOutput out =
                             biformer_attention(in.q, in.k, in.v, routing, in.cu_seqlens, {}, implementation);
                         return {out.o, out.indices};
                       });
}

}  // namespace
}  // namespace longreach::test
