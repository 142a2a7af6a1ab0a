// The formula without a token.
#include "tests/support/no_tokens.h"
#include "layers/attention/sliding/sliding.h"

namespace longreach::test {
namespace {

TEST(NoTokens, Sliding) {
  expect_nothing(at::kDouble, [](const Nothing& in) -> Results {
    return {sliding_attention_reference(in.q, in.k, in.v, 4, 1, in.cu_seqlens)};
  });
}

}  // namespace
}  // namespace longreach::test
