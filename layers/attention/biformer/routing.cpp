// Routing and attention of regions in a sequence: the same steps by the fused operators or by their formulae.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>

#include "layers/attention/biformer/biformer.h"
#include "layers/ops/block_attention/block_attention.h"
#include "layers/ops/common/document_rows.h"
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

at::Tensor pool(const at::Tensor& x, const PoolWindows& windows, Implementation implementation) {
  return (implementation == Implementation::fused ? pool_blocks : pool_blocks_reference)(
      x.detach(), {Pool::mean}, windows);
}

// The first query of every region of every document.
at::Tensor first_queries(const at::Tensor& q, int64_t region, const at::Tensor& cu_seqlens) {
  std::vector<at::Tensor> places{at::arange(0, at::kLong)};  // of a row without documents
  for (const DocumentRows& document : document_rows(cu_seqlens, cu_seqlens, q.size(1), q.size(1), region))
    places.push_back(at::arange(document.rows, at::kLong) * region + document.query);
  return q.detach().index_select(1, at::cat(places).to(q.device()));
}

}  // namespace

at::Tensor biformer_key_means(const at::Tensor& k, const BiformerRouting& routing,
                              const at::Tensor& cu_seqlens, Implementation implementation) {
  return pool(k, windows_of(routing, cu_seqlens), implementation);
}

at::Tensor biformer_regions(const at::Tensor& q, const at::Tensor& means, int64_t tokens, int64_t first,
                            const BiformerRouting& routing, const at::Tensor& cu_seqlens,
                            Implementation implementation) {
  const PoolWindows whole{.width = routing.region, .stride = routing.region, .cu_seqlens = cu_seqlens};
  const at::Tensor rows = routing.query == BiformerRouting::Query::mean
                              ? pool(q, whole, implementation)
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
  const auto select = implementation == Implementation::fused ? select_blocks : select_blocks_reference;
  return select(rows, means, means.size(2), how, geometry, rule, false).indices;
}

BiformerOutput biformer_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const BiformerRouting& routing, const at::Tensor& cu_seqlens,
                                  std::optional<double> scale, Implementation implementation) {
  const at::Tensor means = biformer_key_means(k, routing, cu_seqlens, implementation);
  const BlockLists lists{
      .indices = biformer_regions(q, means, k.size(1), 0, routing, cu_seqlens, implementation),
      .query_block = routing.region,
      .key_block = routing.region,
      .causal = routing.causal,
      .cu_seqlens_q = cu_seqlens,
      .cu_seqlens_k = cu_seqlens};
  const auto attend = implementation == Implementation::fused ? block_attention : block_attention_reference;
  const BlockAttentionOutput out = attend(q, k, v, lists, {.scale = scale});
  return {out.o, out.lse, lists.indices};
}

}  // namespace longreach
