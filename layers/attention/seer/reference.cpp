// The gate's truth and loss from their formulae: the whole probability matrix, the tape for gradients.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <limits>

#include "layers/attention/seer/documents.h"
#include "layers/attention/seer/gate.h"
#include "layers/ops/common/packed_documents.h"

namespace longreach {

at::Tensor seer_block_max_reference(const SeerGateForm& form, const at::Tensor& q, const at::Tensor& k,
                                    const SeerPlaces& places, bool per_query_head) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(form.head_dim));
  const auto documents = seer_documents(form, places);
  const int64_t most = most_blocks(documents, form.block_size), size = form.block_size,
                group = form.heads / form.kv_heads;
  std::vector<at::Tensor> parts;
  for (const PackedDocument& document : documents) {
    const int64_t tokens = document.keys;
    const at::Tensor queries = q.narrow(1, document.key, tokens).transpose(1, 2);
    const at::Tensor keys = k.narrow(1, document.key, tokens).repeat_interleave(group, 2).transpose(1, 2);
    const at::Tensor future = at::ones({tokens, tokens}, q.options().dtype(at::kBool)).triu(1);
    at::Tensor p = (queries.matmul(keys.transpose(2, 3)) * scale)
                       .masked_fill(future, -std::numeric_limits<double>::infinity())
                       .softmax(-1);
    // Zeros fill up the last blocks: no probability is below them.
    p = at::constant_pad_nd(p, {0, most * size - tokens}).unflatten(3, {most, size}).amax(-1);
    if (!form.decode)
      p = at::constant_pad_nd(p, {0, 0, 0, document.rows * size - tokens})
              .unflatten(2, {document.rows, size})
              .amax(3);
    parts.push_back(form.decode && !per_query_head ? p.unflatten(1, {form.kv_heads, group}).amax(2) : p);
  }
  return at::cat(parts, 2);
}

at::Tensor seer_gate_loss_reference(const SeerGateForm& form, const at::Tensor& logits,
                                    const at::Tensor& target, const SeerPlaces& places, double slice_ratio) {
  const at::Tensor weights = seer_row_weights(form, places, slice_ratio);
  const at::Tensor terms =
      at::where(target > 0, target * (target.log() - logits.log_softmax(-1)), at::zeros_like(target));
  return (terms * weights.to(target.device(), target.scalar_type()).unsqueeze(1)).sum();
}

}  // namespace longreach
