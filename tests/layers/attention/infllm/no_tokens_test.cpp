// The formula without a token.
#include "tests/support/no_tokens.h"
#include "layers/attention/infllm/infllm.h"

namespace longreach::test {
namespace {

TEST(NoTokens, Infllm) {
  expect_nothing(at::kDouble, [](const Nothing& in) -> Results {
    return {infllm_attention_reference(in.q, in.k, in.v, {}, in.cu_seqlens)};
  });
}

}  // namespace
}  // namespace longreach::test
