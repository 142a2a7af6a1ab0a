// The formula without a token.
#include "tests/support/no_tokens.h"
#include "layers/attention/dense/dense.h"

namespace longreach::test {
namespace {

TEST(NoTokens, Dense) {
  expect_nothing(at::kDouble, [](const Nothing& in) -> Results {
    return {dense_attention_reference(in.q, in.k, in.v, in.cu_seqlens)};
  });
}

}  // namespace
}  // namespace longreach::test
