// The gate's divergence from the truth, its gradients, and what it is divided by.
#include <ATen/TensorOperators.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "layers/attention/seer/documents.h"
#include "layers/ops/common/autograd.h"

namespace longreach {
namespace {

constexpr int64_t kChunkRows = 256;  // rows whose scores exist at once

using TruthOf = std::function<SeerTruth(const SeerChunk&)>;

// The loss and both gradients in one pass over chunks of rows; backward only scales.
class GateLossOp : public FusedOp {
 public:
  GateLossOp(const SeerGateForm& form, const SeerPlaces& places, at::Tensor row_weights,
             const TruthOf& truth_of)
      : chunks_(seer_chunks(form, places)),
        scale_(1.0 / std::sqrt(static_cast<double>(form.hidden))),
        row_weights_(std::move(row_weights)),
        truth_of_(truth_of) {}

  std::string name() const override { return "seer_gate_loss"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    const at::Tensor &q = inputs[0], &k = inputs[1];
    const auto wide = q.options().dtype(q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
    at::Tensor total = at::zeros({}, wide), dq = at::zeros_like(q), dk = at::zeros(k.sizes(), wide);
    for (const SeerChunk& chunk : chunks_)
      if (counts(chunk)) total.add_(add_chunk(chunk, truth_of_(chunk), q, k, dq, dk));
    saved = {dq, dk.to(k.scalar_type())};
    return {total};
  }

  Tensors backward(const Tensors& saved, const Tensors& grads, const std::vector<bool>&) const override {
    if (!grads[0].defined()) return {at::Tensor(), at::Tensor()};
    return {saved[0] * grads[0].to(saved[0].scalar_type()), saved[1] * grads[0].to(saved[1].scalar_type())};
  }

 private:
  bool counts(const SeerChunk& chunk) const {
    return chunk.document.windows > 0 &&
           row_weights_.narrow(0, chunk.row, chunk.rows).gt(0).any().item<bool>();
  }

  // With p the softmax over the listed blocks: loss = w sum t (log t - log p), d loss / d score = w (p sum t
  // - t).
  at::Tensor add_chunk(const SeerChunk& chunk, const SeerTruth& truth, const at::Tensor& all_q,
                       const at::Tensor& all_k, at::Tensor& dq, at::Tensor& dk) const {
    const int64_t heads = all_q.size(2), group = heads / all_k.size(2);
    const auto wide = dk.scalar_type();
    const at::Tensor q = all_q.narrow(1, chunk.row, chunk.rows).to(wide).transpose(1, 2);
    const at::Tensor k = all_k.narrow(1, chunk.document.window, chunk.document.windows)
                             .to(wide)
                             .repeat_interleave(group, 2)
                             .transpose(1, 2);
    const at::Tensor target = truth.target.to(wide),
                     weights =
                         row_weights_.narrow(0, chunk.row, chunk.rows).to(target.options()).unsqueeze(1);
    const at::Tensor listed = truth.listed.expand(target.sizes());
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

  std::vector<SeerChunk> chunks_;
  double scale_;
  at::Tensor row_weights_;   // float64, on the CPU
  const TruthOf& truth_of_;  // lives while forward runs: the tape must not keep what it holds
};

}  // namespace

std::vector<SeerChunk> seer_chunks(const SeerGateForm& form, const SeerPlaces& places) {
  std::vector<SeerChunk> chunks;
  for (const PackedDocument& document : seer_documents(form, places))
    for (int64_t r = 0; r < document.rows; r += kChunkRows)
      chunks.push_back({document, document.row + r, std::min(kChunkRows, document.rows - r)});
  return chunks;
}

at::Tensor seer_row_weights(const SeerGateForm& form, const SeerPlaces& places, double slice_ratio) {
  std::vector<double> weights;
  for (const PackedDocument& document : seer_documents(form, places)) {
    const int64_t rows = seer_whole_rows(form, places, document),
                  first =
                      form.decode ? static_cast<int64_t>(static_cast<double>(rows) * slice_ratio) : rows / 4;
    const auto elements = static_cast<double>(form.map_heads() * (rows - first));
    for (int64_t r = seer_first_row(form, places), last = r + document.rows; r < last; ++r)
      weights.push_back(r < first ? 0.0 : 1.0 / elements);
  }
  return at::tensor(weights, at::kDouble);
}

at::Tensor seer_gate_loss_by_chunks(const SeerGateForm& form, const at::Tensor& gate_q,
                                    const at::Tensor& gate_k, const SeerPlaces& places, double slice_ratio,
                                    const TruthOf& truth_of) {
  return differentiable(
      std::make_shared<GateLossOp>(form, places, seer_row_weights(form, places, slice_ratio), truth_of),
      {gate_q, gate_k})[0];
}

void SeerLossCount::add(const SeerGateForm& form, const SeerPlaces& places, int64_t batch) {
  for (const PackedDocument& document : seer_documents(form, places)) {
    if (document.rows > 0) documents += batch;
    most_blocks = std::max(most_blocks, document.blocks(form.block_size));
  }
}

double SeerLossCount::divisor() const {
  return static_cast<double>(std::max<int64_t>(documents, 1) * std::max<int64_t>(most_blocks, 1));
}

}  // namespace longreach
