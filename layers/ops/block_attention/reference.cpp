// Block attention from its formula: the whole score matrix, any floating dtype, gradients by autograd.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "layers/ops/block_attention/checks.h"
#include "layers/ops/common/check.h"
#include "layers/ops/common/masked_attention.h"
#include "layers/ops/common/packed_documents.h"

namespace longreach {
namespace {

std::vector<PackedDocument> documents_of(const BlockLists& lists, int64_t queries, int64_t keys) {
  return packed_documents(lists.cu_seqlens_q, lists.cu_seqlens_k, queries, keys, lists.query_block);
}

// Which blocks each row of a document lists: bool [Bl, Hl, rows, blocks].
at::Tensor listed_blocks(const at::Tensor& indices, const PackedDocument& document, int64_t blocks) {
  const at::Tensor rows = indices.narrow(2, document.row, document.rows).to(at::kLong);
  at::Tensor listed =
      at::zeros({rows.size(0), rows.size(1), rows.size(2), blocks + 1}, rows.options().dtype(at::kBool));
  // Entries that name no block of the document fall into a column of their own.
  listed.scatter_(3, rows.where((rows >= 0).logical_and(rows < blocks), at::full({}, blocks, rows.options())),
                  true);
  return listed.narrow(3, 0, blocks);
}

at::Tensor document_mask(const BlockLists& lists, const PackedDocument& document) {
  const int64_t blocks = document.blocks(lists.key_block);
  const at::Tensor visible = listed_blocks(lists.indices, document, blocks)
                                 .repeat_interleave(lists.query_block, 2)
                                 .narrow(2, 0, document.queries)
                                 .repeat_interleave(lists.key_block, 3)
                                 .narrow(3, 0, document.keys);
  if (!lists.causal) return visible;
  const auto options = lists.indices.options().dtype(at::kLong);
  const at::Tensor position =
      at::arange(document.queries, options).add(document.keys - document.queries).unsqueeze(-1);
  return visible.logical_and(at::arange(document.keys, options) <= position);
}

// Largest entry and sum of P over each pair of a query block and a listed key block.
void add_statistics(const at::Tensor& weights, const BlockLists& lists, const BlockAttentionOptions& options,
                    BlockAttentionOutput& out) {
  const int64_t batch = weights.size(0), heads = weights.size(1), per_list = heads / lists.indices.size(1);
  const at::Tensor indices =
      lists.indices.repeat_interleave(per_list, 1).expand({batch, heads, -1, -1}).to(at::kLong);
  out.block_max = at::zeros(indices.sizes(), weights.options());
  out.block_sum = at::zeros(indices.sizes(), weights.options());
  for (const PackedDocument& document : documents_of(lists, weights.size(2), weights.size(3))) {
    for (int64_t r = 0; r < document.rows; ++r) {
      const int64_t first = r * lists.query_block,
                    count = std::min(lists.query_block, document.queries - first);
      const at::Tensor rows =
          weights.narrow(2, document.query + first, count).narrow(3, document.key, document.keys);
      for (int64_t block = 0; block * lists.key_block < document.keys; ++block) {
        const int64_t key = block * lists.key_block;
        const at::Tensor pairs =
            rows.narrow(3, key, std::min(lists.key_block, document.keys - key)).flatten(2);
        const at::Tensor here = indices.select(2, document.row + r) == block;
        for (auto [statistic, value] :
             {std::pair{out.block_max, pairs.amax(-1)}, {out.block_sum, pairs.sum(-1)}})
          statistic.select(2, document.row + r)
              .copy_(statistic.select(2, document.row + r).where(here.logical_not(), value.unsqueeze(-1)));
      }
    }
  }
  if (options.statistics == BlockStatistics::per_head) return;
  out.block_max = out.block_max.unflatten(1, {-1, per_list}).amax(2);
  out.block_sum = out.block_sum.unflatten(1, {-1, per_list}).sum(2);
}

}  // namespace

at::Tensor block_mask_matrix(const BlockLists& lists, int64_t batch, int64_t heads, int64_t queries,
                             int64_t keys) {
  check_block_lists(lists, batch, heads, queries, keys);
  at::Tensor whole = at::zeros({lists.indices.size(0), lists.indices.size(1), queries, keys},
                               lists.indices.options().dtype(at::kBool));
  for (const PackedDocument& document : documents_of(lists, queries, keys))
    whole.narrow(2, document.query, document.queries)
        .narrow(3, document.key, document.keys)
        .copy_(document_mask(lists, document));
  return whole.repeat_interleave(heads / whole.size(1), 1);
}

BlockAttentionOutput block_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                               const BlockLists& lists,
                                               const BlockAttentionOptions& options) {
  check_block_attention(q, k, v, lists);
  expect_dtype(q, "q", {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf});
  const double scale = options.scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3))));
  const at::Tensor visible = block_mask_matrix(lists, q.size(0), q.size(2), q.size(1), k.size(1));
  const MaskedAttention attention = masked_attention(q, k, v, visible, scale);
  BlockAttentionOutput out{attention.o, attention.lse, {}, {}};
  if (options.statistics != BlockStatistics::none)
    add_statistics(attention.weights.detach(), lists, options, out);
  return out;
}

}  // namespace longreach
