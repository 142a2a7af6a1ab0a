// select_blocks: from tensors to the kernel.
#include <ATen/ops/empty.h>

#include <cmath>

#include "layers/ops/common/check.h"
#include "layers/ops/common/kernel_input.h"
#include "layers/ops/selection/cuda/op.h"
#include "layers/ops/selection/rows.h"
#include "layers/ops/selection/tensors.h"

namespace longreach {

Selection select_blocks(const at::Tensor& q, const at::Tensor& k, int64_t lists, const BlockScores& how,
                        const BlockGeometry& geometry, const SelectionRule& rule, bool keep_scores) {
  selection::check_select(q, k, lists, how, geometry, rule);
  check<DtypeError>(q.scalar_type() != at::kDouble,
                    "q: dtype Double, expected Float or BFloat16; select_blocks_reference takes Double");
  expect_kernel_input(q, "q");
  const at::Tensor queries = dense_rows(q), keys = dense_rows(k);
  if (runs_on_cuda(q)) return selection::select_cuda(queries, keys, lists, how, geometry, rule, keep_scores);
  const auto documents = selection::documents(geometry, how, q.size(1));
  auto rows = selection::rows(documents, geometry, rule);
  for (const PackedDocument& document : documents)
    for (int64_t r = 0; r < document.rows; ++r)
      rows[document.row + r].windows = selection::seen_windows(how, geometry, document, r);
  const int64_t blocks = most_blocks(documents, geometry.key_block);
  at::Tensor scores;
  if (keep_scores)
    scores = at::empty({q.size(0), lists, q.size(1), blocks}, at::TensorOptions().dtype(at::kFloat));
  const selection::Lists found = selection::select_cpu(
      {.dtype = kernel_dtype(q),
       .batches = q.size(0),
       .row_count = q.size(1),
       .key_count = k.size(1),
       .heads = q.size(2),
       .key_heads = k.size(2),
       .lists = lists,
       .size = q.size(3),
       .q = strided(queries),
       .k = strided(keys),
       .documents = documents.data(),
       .document_count = static_cast<int64_t>(documents.size()),
       .rows = rows.data(),
       .scale = static_cast<float>(how.scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3))))),
       .softmax = how.softmax,
       .vote = selection::vote_kind(how.vote),
       .width = how.width,
       .stride = how.stride,
       .key_block = geometry.key_block,
       .limits = selection::limits(rule),
       .scores = keep_scores ? scores.mutable_data_ptr<float>() : nullptr,
       .blocks = blocks});
  return {selection::list_tensor(found, documents, geometry, rule, q, lists), scores};
}

Selection select_blocks_by(Implementation implementation, const at::Tensor& q, const at::Tensor& k,
                           int64_t lists, const BlockScores& how, const BlockGeometry& geometry,
                           const SelectionRule& rule, bool keep_scores) {
  const bool fused = implementation == Implementation::fused;
  return (fused ? select_blocks : select_blocks_reference)(q, k, lists, how, geometry, rule, keep_scores);
}

}  // namespace longreach
