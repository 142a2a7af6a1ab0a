// The formula without a token.
#include <ATen/ops/full.h>

#include "layers/attention/lightning/lightning.h"
#include "tests/support/no_tokens.h"

namespace longreach::test {
namespace {

TEST(NoTokens, Lightning) {
  const at::Tensor by_head = at::full({kHeads}, -0.1, at::kFloat);
  for (const bool state : {false, true})
    expect_nothing(at::kDouble, [&](const Nothing& in) -> Results {
      const at::Tensor start = at::zeros({in.sequences(), kHeads, kSize, kSize}, in.options()),
                       k = in.k.repeat_interleave(2, 2), v = in.v.repeat_interleave(2, 2);
      const LightningAttentionOutput out = lightning_attention_reference(
          in.q, k, v, by_head, 1.0, state ? start : at::Tensor(), in.cu_seqlens);
      EXPECT_EQ(out.state.sizes(), start.sizes());
      return {out.o, out.state.detach()};
    });
}

}  // namespace
}  // namespace longreach::test
