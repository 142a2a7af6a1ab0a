// The formula and the lists without a token.
#include "tests/support/no_tokens.h"
#include "layers/attention/s2/s2.h"
#include "layers/ops/block_attention/block_attention.h"

namespace longreach::test {
namespace {

TEST(NoTokens, S2) {
  const S2Pattern pattern{.block_size = 16, .local_blocks = 1, .vert_stride = 2, .heads = kKeyHeads};
  expect_nothing(at::kDouble, [&](const Nothing& in) -> Results {
    return {s2_attention_reference(in.q, in.k, in.v, pattern, in.cu_seqlens)};
  });
  expect_nothing(at::kFloat, [&](const Nothing& in) -> Results {
    const BlockLists lists{.indices = s2_lists(pattern, 0, 0, 16, in.cu_seqlens),
                           .query_block = 16,
                           .key_block = 16,
                           .cu_seqlens_q = in.cu_seqlens,
                           .cu_seqlens_k = in.cu_seqlens};
    return {block_attention(in.q, in.k, in.v, lists).o};
  });
}

}  // namespace
}  // namespace longreach::test
