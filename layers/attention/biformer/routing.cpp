// Routing of regions in a sequence, by shared operators, and attention over what they choose.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>

#include "layers/attention/biformer/biformer.h"
#include "layers/ops/block_attention/block_attention.h"
#include "layers/ops/common/packed_documents.h"
#include "layers/ops/selection/selection.h"

namespace longreach {
namespace {

// Causal rows read whole regions and their own; so a short region at the end needs no mean.
PoolWindows windows_of(const BiformerRouting& routing, const at::Tensor& cu_seqlens) {
  return {.width = routing.region,
          .stride = routing.region,
          .partial = !routing.causal,
          .cu_seqlens = cu_seqlens};
}

// The first query of every region of every document.
at::Tensor first_queries(const at::Tensor& q, int64_t region, const at::Tensor& cu_seqlens) {
  std::vector<at::Tensor> places{at::arange(0, at::kLong)};  // of a row without documents
  for (const PackedDocument& document :
       packed_documents(cu_seqlens, cu_seqlens, q.size(1), q.size(1), region))
    places.push_back(at::arange(document.rows, at::kLong) * region + document.query);
  return q.detach().index_select(1, at::cat(places).to(q.device()));
}

}  // namespace

at::Tensor biformer_key_means(const at::Tensor& k, const BiformerRouting& routing,
                              const at::Tensor& cu_seqlens, Implementation implementation) {
  return pool_blocks_by(implementation, k.detach(), {Pool::mean}, windows_of(routing, cu_seqlens));
}

at::Tensor biformer_regions(const at::Tensor& q, const at::Tensor& means, int64_t tokens, int64_t first,
                            const BiformerRouting& routing, const at::Tensor& cu_seqlens,
                            Implementation implementation) {
  const PoolWindows whole{.width = routing.region, .stride = routing.region, .cu_seqlens = cu_seqlens};
  const at::Tensor rows = routing.query == BiformerRouting::Query::mean
                              ? pool_blocks_by(implementation, q.detach(), {Pool::mean}, whole)
                              : first_queries(q, routing.region, cu_seqlens);
  using Visible = BlockScores::Visible;
  const BlockScores how{.visible = routing.causal ? Visible::past : Visible::all,
                        .softmax = false,
                        .width = routing.region,
                        .stride = routing.region,
                        .partial = !routing.causal};
  const BlockGeometry geometry{.query_block = routing.region,
                               .key_block = routing.region,
                               .tokens = tokens,
                               .offset = first,
                               .cu_seqlens = cu_seqlens};
  const SelectionRule rule{.top_k = routing.topk, .latest = routing.causal ? 1 : 0, .causal = routing.causal};
  return select_blocks_by(implementation, rows, means, means.size(2), how, geometry, rule).indices;
}

BiformerOutput biformer_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const BiformerRouting& routing, const at::Tensor& cu_seqlens,
                                  std::optional<double> scale, Implementation implementation) {
  if (implementation == Implementation::reference)
    return biformer_attention_reference(q, k, v, routing, cu_seqlens, scale);
  const at::Tensor means = biformer_key_means(k, routing, cu_seqlens, implementation);
  const BlockLists lists{
      .indices = biformer_regions(q, means, k.size(1), 0, routing, cu_seqlens, implementation),
      .query_block = routing.region,
      .key_block = routing.region,
      .causal = routing.causal,
      .cu_seqlens_q = cu_seqlens,
      .cu_seqlens_k = cu_seqlens};
  const BlockAttentionOutput out = block_attention(q, k, v, lists, {.scale = scale});
  return {out.o, out.lse, lists.indices};
}

}  // namespace longreach
