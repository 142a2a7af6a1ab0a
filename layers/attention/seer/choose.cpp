// From scores to lists of blocks.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/full.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "layers/attention/seer/documents.h"
#include "layers/attention/seer/gate.h"
#include "layers/ops/common/packed_documents.h"

namespace longreach {
namespace {

// The rule of the shared operator. The decode form's own block is forced and comes on top of top_k.
SelectionRule selection_rule(const SeerGateForm& form, const SeerRule& rule) {
  SelectionRule result{.top_k = rule.top_k, .density = rule.density, .threshold = rule.threshold};
  result.first = rule.first_blocks;
  result.latest = form.decode || rule.force_diagonal ? 1 : 0;
  if (form.decode && rule.top_k > 0) ++result.top_k;
  return result;
}

// The last two rows of each document list every causal block.
at::Tensor with_dense_ends(const SeerGateForm& form, const SeerPlaces& places, const at::Tensor& indices) {
  const auto documents = seer_documents(form, places);
  const int64_t most = std::max(most_blocks(documents, form.block_size), indices.size(3));
  at::Tensor widened = at::constant_pad_nd(indices, {0, most - indices.size(3)}, -1);
  const at::Tensor blocks = at::arange(most, indices.options());
  const int64_t first = seer_first_row(form, places);
  for (const PackedDocument& document : documents)
    for (int64_t r = std::max<int64_t>(seer_whole_rows(form, places, document) - 2 - first, 0);
         r < document.rows; ++r)
      widened.select(2, document.row + r)
          .copy_(at::where(blocks <= first + r, blocks, at::full_like(blocks, -1)));
  return widened;
}

at::Tensor finished(const SeerGateForm& form, const SeerRule& rule, const SeerPlaces& places,
                    const at::Tensor& indices) {
  return !form.decode && rule.last_block_dense ? with_dense_ends(form, places, indices) : indices;
}

}  // namespace

SeerRule seer_rule(const SeerConfig& config) {
  SeerRule rule{.first_blocks = config.first_blocks,
                .force_diagonal = config.force_diagonal,
                .last_block_dense = config.last_block_dense};
  if (config.selection == "token_budget") rule.top_k = config.token_budget / config.block_size;
  if (config.selection == "top_k") rule.top_k = config.top_k;
  if (config.selection == "threshold") rule.threshold = config.threshold;
  if (config.selection == "density") rule.density = config.density;
  return rule;
}

at::Tensor seer_choose(const SeerGateForm& form, const SeerRule& rule, const at::Tensor& gate_q,
                       const at::Tensor& gate_k, const SeerPlaces& places, Implementation implementation) {
  BlockScores how{.width = form.block_size, .stride = form.block_size, .partial = !form.decode};
  how.visible = form.decode ? BlockScores::Visible::past : BlockScores::Visible::started;
  how.softmax = rule.threshold.has_value();  // shares that underflow would tie where logits do not
  const at::Tensor indices =
      select_blocks_by(implementation, gate_q.detach().contiguous(), gate_k.detach().contiguous(),
                       form.map_heads(), how, places.geometry(form), selection_rule(form, rule))
          .indices;
  return finished(form, rule, places, indices);
}

at::Tensor seer_choose_from(const SeerGateForm& form, const SeerRule& rule, const at::Tensor& scores,
                            const SeerPlaces& places) {
  return finished(form, rule, places,
                  choose_blocks(scores, places.geometry(form), selection_rule(form, rule)));
}

at::Tensor seer_all_blocks(const SeerGateForm& form, const SeerPlaces& places) {
  const at::Tensor own = seer_own_blocks(form, places).unsqueeze(1),
                   blocks =
                       at::arange(most_blocks(seer_documents(form, places), form.block_size), own.options());
  const at::Tensor listed = at::where(blocks <= own, blocks, at::full_like(blocks, -1)).to(at::kInt);
  return listed.expand({1, form.map_heads(), listed.size(0), listed.size(1)}).contiguous();
}

at::Tensor seer_block_map(const at::Tensor& indices, int64_t blocks) {
  const at::Tensor places = indices.to(at::kLong);
  at::Tensor map = at::zeros({indices.size(0), indices.size(1), indices.size(2), blocks + 1},
                             places.options().dtype(at::kBool));
  map.scatter_(3, at::where(places >= 0, places, at::full_like(places, blocks)), true);
  return map.narrow(3, 0, blocks);
}

}  // namespace longreach
