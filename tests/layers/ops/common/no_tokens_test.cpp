// Operators without a token.
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include "layers/ops/block_attention/block_attention.h"
#include "layers/ops/interval_attention/interval_attention.h"
#include "layers/ops/merge/merge.h"
#include "layers/ops/recurrence/recurrence.h"
#include "layers/ops/selection/selection.h"
#include "tests/support/no_tokens.h"

namespace longreach::test {
namespace {

TEST(NoTokens, SoftmaxOperators) {
  for (const bool sinks : {false, true}) {
    const auto mask = [&](const Nothing& in) {
      return IntervalMask{.window = sinks ? 4 : 0,
                          .sinks = sinks ? 2 : 0,
                          .cu_seqlens_q = in.cu_seqlens,
                          .cu_seqlens_k = in.cu_seqlens};
    };
    expect_nothing(at::kFloat, [&](const Nothing& in) -> Results {
      return {interval_attention(in.q, in.k, in.v, mask(in)).o};
    });
    expect_nothing(at::kDouble, [&](const Nothing& in) -> Results {
      return {interval_attention_reference(in.q, in.k, in.v, mask(in)).o};
    });
  }
  for (const int64_t slots : {0, 3})
    for (const bool fused : {false, true})
      expect_nothing(fused ? at::kFloat : at::kDouble, [&](const Nothing& in) -> Results {
        const BlockLists lists{.indices = at::empty({1, kKeyHeads, 0, slots}, at::kInt),
                               .query_block = 16,
                               .key_block = 16,
                               .cu_seqlens_q = in.cu_seqlens,
                               .cu_seqlens_k = in.cu_seqlens};
        const BlockAttentionOutput out = (fused ? block_attention : block_attention_reference)(
            in.q, in.k, in.v, lists, {.statistics = BlockStatistics::per_list});
        return {out.o, out.block_max, out.block_sum};
      });
  for (const bool fused : {false, true})
    expect_nothing(fused ? at::kFloat : at::kDouble, [&](const Nothing& in) -> Results {
      const IntervalAttentionOutput part =
          fused ? interval_attention(in.q, in.k, in.v) : interval_attention_reference(in.q, in.k, in.v);
      return {(fused ? merge_attention : merge_attention_reference)({part, part}).o};
    });
}

TEST(NoTokens, Recurrences) {
  const at::Tensor by_head = at::full({kHeads}, -0.1, at::kFloat);
  for (const bool state : {false, true})
    for (const bool by_token : {false, true})
      for (const bool fused : {false, true})
        expect_nothing(fused ? at::kFloat : at::kDouble, [&](const Nothing& in) -> Results {
          const at::Tensor start = at::zeros({in.sequences(), kHeads, kSize, kSize}, in.options());
          const RecurrenceOutput out = (fused ? recurrence : recurrence_reference)(
              in.q, in.k, in.v, by_token ? at::zeros({1, 0, kHeads}, at::kFloat) : by_head,
              state ? start : at::Tensor(), in.cu_seqlens, {});
          EXPECT_EQ(out.final_state.sizes(), start.sizes());
          return {out.o, out.final_state.detach()};
        });
}

TEST(NoTokens, SelectionAndPools) {
  for (const bool fused : {false, true})
    for (const int64_t top_k : {0, 2})
      expect_nothing(fused ? at::kFloat : at::kDouble, [&](const Nothing& in) -> Results {
        const PoolWindows windows{16, 16, true, in.cu_seqlens};
        const auto pool = fused ? pool_blocks : pool_blocks_reference;
        const at::Tensor q = pool(in.q, {Pool::mean, Pool::max, Pool::min}, windows),
                         k = pool(in.k, {Pool::mean, Pool::max, Pool::min}, windows);
        const BlockGeometry geometry{.query_block = 16, .key_block = 16, .cu_seqlens = in.cu_seqlens};
        const Selection chosen = (fused ? select_blocks : select_blocks_reference)(
            q, k, kKeyHeads, {.width = 16, .stride = 16}, geometry, {.top_k = top_k}, true);
        EXPECT_TRUE(choose_blocks(chosen.scores, geometry, {.top_k = top_k}).sizes() ==
                    chosen.indices.sizes());
        return {q, chosen.indices, chosen.scores};
      });
}

}  // namespace
}  // namespace longreach::test
