// What the gate learns from: the largest probability of each block, out of block attention's own pass.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "layers/attention/seer/documents.h"

namespace longreach {
namespace {

constexpr double kSumFloor = 1e-9;  // the authors' guard, decode form

// indices without what the row does not score: the decode form's own block.
at::Tensor scored(const SeerGateForm& form, const at::Tensor& indices, const at::Tensor& own) {
  if (!form.decode) return indices;
  return at::where(indices < own.to(indices.device()).unsqueeze(1), indices, at::full_like(indices, -1));
}

// The truth of a chunk of rows, by block attention over every causal block of theirs.
class ChunkTruth {
 public:
  ChunkTruth(const SeerGateForm& form, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
             Implementation implementation)
      : form_(form), q_(q.detach()), k_(k.detach()), v_(v.detach()), implementation_(implementation) {}

  SeerTruth operator()(const SeerChunk& chunk) const {
    // Queries count from the first that is here, keys from the document's first.
    const PackedDocument& document = chunk.document;
    const int64_t first_row = chunk.row - document.row, first = first_row * form_.query_block(),
                  end = std::min(first + chunk.rows * form_.query_block(), document.queries),
                  keys = document.position(end);
    const at::Tensor rows = at::arange(first_row, first_row + chunk.rows, at::kLong),
                     own = form_.decode ? (rows + document.position(0)).floor_divide(form_.block_size)
                                        : rows + document.position(0) / form_.block_size,
                     all = causal_blocks(own, ceil_div(keys, form_.block_size));
    const BlockLists lists{.indices = all, .query_block = form_.query_block(), .key_block = form_.block_size};
    const at::NoGradGuard no_grad;
    const BlockAttentionOutput out = block_attention_by(
        implementation_, q_.narrow(1, document.query + first, end - first), k_.narrow(1, document.key, keys),
        v_.narrow(1, document.key, keys), lists, {.statistics = BlockStatistics::per_list});
    const at::Tensor listed = scored(form_, all, own);
    return {listed, seer_scored_target(form_, out.block_max, listed)};
  }

 private:
  at::Tensor causal_blocks(const at::Tensor& own, int64_t count) const {
    const at::Tensor blocks = at::arange(count, at::kLong);
    const at::Tensor listed =
        at::where(blocks <= own.unsqueeze(1), blocks, at::full_like(blocks, -1)).to(at::kInt);
    return listed.expand({1, form_.map_heads(), listed.size(0), listed.size(1)}).contiguous().to(q_.device());
  }

  const SeerGateForm& form_;
  const at::Tensor q_, k_, v_;
  const Implementation implementation_;
};

}  // namespace

SeerAttended seer_attend(const SeerGateForm& form, const at::Tensor& q, const at::Tensor& k,
                         const at::Tensor& v, const at::Tensor& indices, const SeerPlaces& places,
                         bool statistics, Implementation implementation) {
  const BlockLists lists{.indices = indices.to(q.device()),
                         .query_block = form.query_block(),
                         .key_block = form.block_size,
                         .cu_seqlens_q = places.cu_seqlens,
                         .cu_seqlens_k = places.cu_seqlens};
  BlockAttentionOptions options;
  if (statistics) options.statistics = BlockStatistics::per_list;
  const BlockAttentionOutput out = block_attention_by(implementation, q, k, v, lists, options);
  return {out.o, out.block_max};
}

at::Tensor seer_scored_target(const SeerGateForm& form, const at::Tensor& block_max,
                              const at::Tensor& listed) {
  const at::Tensor zero = at::zeros_like(block_max), kept = at::where(listed >= 0, block_max, zero),
                   sum = kept.sum(-1, true);
  if (form.decode) return kept / (sum + kSumFloor);
  return at::where(sum > 0, kept / sum, zero);
}

at::Tensor seer_gate_target(const SeerGateForm& form, const at::Tensor& block_max, const at::Tensor& indices,
                            const SeerPlaces& places) {
  return seer_scored_target(form, block_max, scored(form, indices, seer_own_blocks(form, places)));
}

at::Tensor seer_gate_loss(const SeerGateForm& form, const at::Tensor& gate_q, const at::Tensor& gate_k,
                          const at::Tensor& target, const at::Tensor& indices, const SeerPlaces& places,
                          double slice_ratio) {
  const at::Tensor listed = scored(form, indices, seer_own_blocks(form, places)).to(gate_q.device()),
                   wanted = target.detach();
  return seer_gate_loss_by_chunks(form, gate_q, gate_k, places, slice_ratio, [&](const SeerChunk& chunk) {
    return SeerTruth{listed.narrow(2, chunk.row, chunk.rows), wanted.narrow(2, chunk.row, chunk.rows)};
  });
}

at::Tensor seer_distillation_loss(const SeerGateForm& form, const at::Tensor& q, const at::Tensor& k,
                                  const at::Tensor& v, const at::Tensor& gate_q, const at::Tensor& gate_k,
                                  const SeerPlaces& places, double slice_ratio,
                                  Implementation implementation) {
  return seer_gate_loss_by_chunks(form, gate_q, gate_k, places, slice_ratio,
                                  ChunkTruth(form, q, k, v, implementation));
}

at::Tensor seer_block_max_by(Implementation implementation, const SeerGateForm& form, const at::Tensor& q,
                             const at::Tensor& k, const SeerPlaces& places, bool per_query_head) {
  if (implementation == Implementation::reference)
    return seer_block_max_reference(form, q, k, places, per_query_head);
  // With a key head for every head, each has a map of its own. Maxima do not depend on the values.
  SeerGateForm maps = form;
  if (per_query_head) maps.kv_heads = maps.heads;
  return seer_attend(maps, q, k, k, seer_all_blocks(maps, places), places, true, implementation).block_max;
}

at::Tensor seer_gate_loss_by(Implementation implementation, const SeerGateForm& form,
                             const at::Tensor& gate_q, const at::Tensor& gate_k, const at::Tensor& target,
                             const SeerPlaces& places, double slice_ratio) {
  if (implementation == Implementation::reference)
    return seer_gate_loss_reference(form, seer_gate_logits(form, gate_q, gate_k, places), target, places,
                                    slice_ratio);
  return seer_gate_loss(form, gate_q, gate_k, target, seer_all_blocks(form, places), places, slice_ratio);
}

}  // namespace longreach
