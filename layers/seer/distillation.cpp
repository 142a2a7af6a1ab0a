// What the gate learns from: the largest probability of each block, out of the attention's own pass, and the
// divergence from it.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "layers/ops/autograd.h"
#include "layers/seer/documents.h"
#include "layers/seer/gate.h"
#include "layers/seer/operators.h"

namespace longreach {
namespace {

constexpr int64_t kChunkRows = 256;  // rows whose scores exist at once
constexpr double kSumFloor = 1e-9;   // the authors' guard, decode form

// Some rows of one document.
struct Chunk {
  SeerDocument document;
  int64_t row, rows;
};

std::vector<Chunk> chunks_of(const SeerGateForm& form, const SeerPlaces& places) {
  std::vector<Chunk> chunks;
  for (const SeerDocument& document : seer_documents(form, places))
    for (int64_t r = 0; r < document.rows; r += kChunkRows)
      if (document.windows > 0)
        chunks.push_back({document, document.row + r, std::min(kChunkRows, document.rows - r)});
  return chunks;
}

// The loss and both gradients in one pass over chunks of rows; backward only scales.
class GateLossOp : public FusedOp {
 public:
  GateLossOp(const SeerGateForm& form, const SeerPlaces& places, at::Tensor target, at::Tensor listed,
             at::Tensor row_weights)
      : chunks_(chunks_of(form, places)),
        scale_(1.0 / std::sqrt(static_cast<double>(form.hidden))),
        target_(std::move(target)),
        listed_(std::move(listed)),
        row_weights_(std::move(row_weights)) {}

  std::string name() const override { return "seer_gate_loss"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    const at::Tensor &q = inputs[0], &k = inputs[1];
    at::Tensor total = at::zeros({}, target_.options());
    at::Tensor dq = at::zeros_like(q), dk = at::zeros(k.sizes(), target_.options());
    for (const Chunk& chunk : chunks_) total.add_(add_chunk(chunk, q, k, dq, dk));
    saved = {dq, dk.to(k.scalar_type())};
    return {total};
  }

  Tensors backward(const Tensors& saved, const Tensors& grads, const std::vector<bool>&) const override {
    if (!grads[0].defined()) return {at::Tensor(), at::Tensor()};
    return {saved[0] * grads[0].to(saved[0].scalar_type()), saved[1] * grads[0].to(saved[1].scalar_type())};
  }

 private:
  // With p the softmax over the listed blocks: loss = w sum t (log t - log p), d loss / d score = w (p sum t - t).
  at::Tensor add_chunk(const Chunk& chunk, const at::Tensor& all_q, const at::Tensor& all_k, at::Tensor& dq,
                       at::Tensor& dk) const {
    const int64_t heads = all_q.size(2), group = heads / all_k.size(2);
    const auto wide = target_.scalar_type();
    const at::Tensor q = all_q.narrow(1, chunk.row, chunk.rows).to(wide).transpose(1, 2);
    const at::Tensor k = all_k.narrow(1, chunk.document.window, chunk.document.windows)
                             .to(wide)
                             .repeat_interleave(group, 2)
                             .transpose(1, 2);
    const at::Tensor target = target_.narrow(2, chunk.row, chunk.rows),
                     weights = row_weights_.narrow(0, chunk.row, chunk.rows).unsqueeze(1);
    const at::Tensor listed =
        listed_.narrow(2, chunk.row, chunk.rows).expand({q.size(0), heads, chunk.rows, listed_.size(3)});
    const at::Tensor visible = listed >= 0, columns = listed.clamp_min(0).to(at::kLong);
    const at::Tensor scores =
        (q.matmul(k.transpose(2, 3)) * scale_)
            .gather(3, columns)
            .masked_fill(visible.logical_not(), -std::numeric_limits<double>::infinity());
    const at::Tensor any = visible.any(-1, true);
    const at::Tensor log_p = at::where(any, scores, at::zeros_like(scores)).log_softmax(-1);
    const at::Tensor zero = at::zeros_like(target);
    const at::Tensor terms = at::where(target > 0, target * (target.log() - log_p), zero);
    const at::Tensor slope =
        at::where(visible, log_p.exp() * target.sum(-1, true) - target, zero) * (weights * scale_);
    const at::Tensor by_block =
        at::zeros({q.size(0), heads, chunk.rows, chunk.document.windows}, target.options())
            .scatter_add(3, columns, slope);
    dq.narrow(1, chunk.row, chunk.rows).copy_(by_block.matmul(k).transpose(1, 2));
    dk.narrow(1, chunk.document.window, chunk.document.windows)
        .add_(by_block.transpose(2, 3).matmul(q).unflatten(1, {-1, group}).sum(2).transpose(1, 2));
    return (terms * weights).sum();
  }

  std::vector<Chunk> chunks_;
  double scale_;
  at::Tensor target_, listed_, row_weights_;
};

// indices without what the row does not score: the decode form's own block.
at::Tensor scored_blocks(const SeerGateForm& form, const at::Tensor& indices, const SeerPlaces& places) {
  if (!form.decode) return indices;
  const at::Tensor own = seer_own_blocks(form, places).to(indices.device()).unsqueeze(1);
  return at::where(indices < own, indices, at::full_like(indices, -1));
}

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
  const BlockAttentionOutput out = seer::attend(q, k, v, lists, options, implementation);
  return {out.o, out.block_max};
}

at::Tensor seer_gate_target(const SeerGateForm& form, const at::Tensor& block_max, const at::Tensor& indices,
                            const SeerPlaces& places) {
  const at::Tensor scored = scored_blocks(form, indices, places) >= 0, zero = at::zeros_like(block_max);
  const at::Tensor kept = at::where(scored, block_max, zero), sum = kept.sum(-1, true);
  if (form.decode) return kept / (sum + kSumFloor);
  return at::where(sum > 0, kept / sum, zero);
}

at::Tensor seer_row_weights(const SeerGateForm& form, const SeerPlaces& places, double slice_ratio,
                            int64_t batch, int64_t blocks) {
  const auto documents = seer_documents(form, places);
  const auto counted = std::count_if(documents.begin(), documents.end(),
                                     [](const SeerDocument& document) { return document.rows > 0; });
  std::vector<double> weights;
  for (const SeerDocument& document : documents) {
    const int64_t first = form.decode ? static_cast<int64_t>(static_cast<double>(document.rows) * slice_ratio)
                                      : document.rows / 4;
    const double elements = static_cast<double>(counted * batch * form.map_heads() * blocks) *
                            static_cast<double>(document.rows - first);
    for (int64_t r = 0; r < document.rows; ++r) weights.push_back(r < first ? 0.0 : 1.0 / elements);
  }
  return at::tensor(weights, at::kDouble);
}

at::Tensor seer_gate_loss(const SeerGateForm& form, const at::Tensor& gate_q, const at::Tensor& gate_k,
                          const at::Tensor& target, const at::Tensor& indices, const SeerPlaces& places,
                          double slice_ratio) {
  const int64_t blocks = seer_most_blocks(seer_documents(form, places));
  const at::Tensor weights = seer_row_weights(form, places, slice_ratio, gate_q.size(0), blocks);
  return differentiable(std::make_shared<GateLossOp>(form, places, target.detach(),
                                                     scored_blocks(form, indices, places).to(gate_q.device()),
                                                     weights.to(target.device(), target.scalar_type())),
                        {gate_q, gate_k})[0];
}

}  // namespace longreach
