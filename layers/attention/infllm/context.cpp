// One sequence over several ranks: the means of strides come from all, then the blocks that somebody chose.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>

#include "layers/attention/common/context/chosen_blocks.h"
#include "layers/attention/common/context/head_share.h"
#include "layers/attention/common/context/places.h"
#include "layers/attention/common/context/planned_rows.h"
#include "layers/attention/common/context/stretch_rows.h"
#include "layers/attention/infllm/module.h"

namespace longreach::infllm {
namespace {

// Ranks cut documents where blocks begin, so that no stride lies on two.
StretchRows rows_of_strides(const std::shared_ptr<const ContextGroup>& context, int64_t stride) {
  return {context, [stride](int64_t tokens) { return tokens / stride; }};
}

// What arrives: means of the strides that the pieces look back on. No gradient.
at::Tensor fetched_means(const ContextGroup& context, const StretchRows& rows, const at::Tensor& k,
                         const InfllmConfig& config) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> own{infllm_stride_means(k.narrow(1, 0, 0), config)};
  for (const Piece& piece : context.pieces())
    own.push_back(infllm_stride_means(k.narrow(1, piece.local, piece.tokens), config, cu_seqlens_of(piece)));
  return fetch(rows.exchange(), at::cat(own, 1), "means of keys");
}

}  // namespace

at::Tensor InfllmAttention::attend_context(const Heads& all,
                                           const std::shared_ptr<const ContextGroup>& ranks) const {
  const HeadShare share(ranks, site_.num_kv_heads, *this, all.q.scalar_type());
  const auto& context = share.context();
  const Heads heads = share.to_heads(all);
  const StretchRows rows = rows_of_strides(context, config_.kernel_stride);
  const at::Tensor means = fetched_means(*context, rows, heads.k, config_);
  std::vector<BlockLists> lists;
  for (const Piece& piece : context->pieces()) {
    const Interval seen = rows.of(piece);
    const at::Tensor bounds = cu_seqlens_of(piece);
    lists.push_back(
        {.indices =
             lists_of(heads.q.narrow(1, piece.local, piece.tokens), means.narrow(1, seen.begin, seen.size()),
                      config_, documents_of(config_, bounds, piece.tokens, piece.before() + piece.tokens)),
         .query_block = 1,
         .key_block = config_.block_size,
         .cu_seqlens_q = bounds,
         .cu_seqlens_k = bounds});
  }
  return share.to_tokens(attend_blocks_in_context(context, heads, lists, config_.block_size,
                                                  share_chosen_blocks(*context, lists, config_.block_size),
                                                  block_operators(site_.implementation))
                             .o);
}

PlannedTraffic InfllmAttention::planned_traffic(const std::shared_ptr<const ContextGroup>& ranks,
                                                at::ScalarType dtype) const {
  const HeadShare share(ranks, site_.num_kv_heads, *this, dtype);
  const auto& context = share.context();
  const int64_t numbers = share.own(site_.num_kv_heads).size() * site_.head_dim;
  PlannedTraffic plan;
  plan_heads(plan, share, site_);
  plan_fetched(plan, "means of keys", rows_of_strides(context, config_.kernel_stride), numbers,
               sums_of(dtype),
               /*gradients=*/false);
  plan_chosen_blocks(plan, context, config_.block_size, 2 * numbers, dtype);
  return plan;
}

}  // namespace longreach::infllm
