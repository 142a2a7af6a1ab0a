// One sequence over several ranks: means of regions come from all, then the regions that somebody chose.
#include "layers/attention/biformer/module.h"
#include "layers/attention/common/context/chosen_blocks.h"
#include "layers/attention/common/context/head_share.h"
#include "layers/attention/common/context/places.h"
#include "layers/attention/common/context/planned_rows.h"
#include "layers/attention/common/context/stretch_rows.h"

namespace longreach::biformer {
namespace {

StretchRows region_rows(const std::shared_ptr<const ContextGroup>& context, const BiformerRouting& routing) {
  return {context, [region = routing.region](int64_t tokens) { return tokens / region; }};
}

}  // namespace

at::Tensor BiformerAttention::attend_context(const Heads& all_heads,
                                             const std::shared_ptr<const ContextGroup>& ranks) const {
  const HeadShare share(ranks, site_.num_kv_heads, *this, all_heads.q.scalar_type());
  const auto& context = share.context();
  const Heads heads = share.to_heads(all_heads);
  const int64_t region = routing_.region;
  const StretchRows rows = region_rows(context, routing_);
  const at::Tensor own =
      biformer_key_means(heads.k, routing_, own_cu_seqlens(*context), site_.implementation);
  const at::Tensor means = rows.exchange()->fetch(own[0], "means of regions").unsqueeze(0);
  std::vector<BlockLists> lists;
  for (const Piece& piece : context->pieces()) {
    BlockLists& of_piece = lists.emplace_back(BlockLists{.query_block = region, .key_block = region});
    of_piece.cu_seqlens_q = of_piece.cu_seqlens_k = cu_seqlens_of(piece);
    const int64_t before = piece.before();
    const Interval seen = rows.of(piece);
    of_piece.indices = biformer_regions(heads.q.narrow(1, piece.local, piece.tokens),
                                        means.narrow(1, seen.begin, seen.size()), before + piece.tokens,
                                        before, routing_, of_piece.cu_seqlens_q, site_.implementation);
  }
  return share.to_tokens(attend_blocks_in_context(context, heads, lists, region,
                                                  share_chosen_blocks(*context, lists, region),
                                                  block_operators(site_.implementation))
                             .o);
}

PlannedTraffic BiformerAttention::planned_traffic(const std::shared_ptr<const ContextGroup>& ranks,
                                                  at::ScalarType dtype) const {
  const HeadShare share(ranks, site_.num_kv_heads, *this, dtype);
  const auto& context = share.context();
  PlannedTraffic plan;
  plan_heads(plan, share, site_);
  const int64_t numbers = share.own(site_.num_kv_heads).size() * site_.head_dim;
  plan_fetched(plan, "means of regions", region_rows(context, routing_), numbers, dtype, false);
  plan_chosen_blocks(plan, context, routing_.region, 2 * numbers, dtype);
  return plan;
}

}  // namespace longreach::biformer
