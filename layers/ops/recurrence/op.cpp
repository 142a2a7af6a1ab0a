// The fused recurrence: runs the kernels behind autograd.
//
// Kept for the backward pass beside the inputs: the state at the start of each segment. A segment is about
// 8 Dk Dv / (Dk + Dv) tokens, so that these states take at most 1/8 of the memory of o, dq, dk and dv
// together. On CUDA every chunk is a segment, and all run side by side.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "layers/ops/common/recompute.h"
#include "layers/ops/recurrence/checks.h"
#include "layers/ops/recurrence/recurrence.h"
#include "layers/ops/recurrence/segments.h"

namespace longreach {
namespace {

using namespace recurrence_kernels;

enum Saved : size_t { kQ, kK, kV, kLogDecay, kCheckpoints };

class RecurrenceOp final : public FusedOp {
 public:
  RecurrenceOp(const at::Tensor& cu_seqlens, RecurrenceOptions options, bool keep)
      : cu_seqlens_(cu_seqlens.defined() ? cu_seqlens.clone() : cu_seqlens), options_(options), keep_(keep) {}

  std::string name() const override { return "recurrence"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    check_recurrence(inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], cu_seqlens_, options_);
    const at::Tensor q = dense_rows(inputs[0]), k = dense_rows(inputs[1]), v = dense_rows(inputs[2]);
    const at::Tensor &log_decay = inputs[3], start = inputs[4].defined() ? inputs[4].contiguous() : inputs[4];
    const Plan plan(q, k, v, log_decay, cu_seqlens_, options_);
    const Shape& shape = plan.shape;
    const auto f32 = q.options().dtype(at::kFloat);
    const bool split = q.is_cpu() && plan.split(shape.heads);
    const at::Tensor o = at::empty({q.size(0), q.size(1), shape.heads, shape.dv}, v.options());
    const at::Tensor end = at::empty({shape.sequence_count, shape.heads, shape.dk, shape.dv}, f32);
    at::Tensor checkpoints, decays;
    Forward params{.shape = shape,
                   .q = strided(q),
                   .k = strided(k),
                   .v = strided(v),
                   .o = strided(o),
                   .initial_state = floats(start),
                   .final_state = floats(end),
                   .split = split};
    if (runs_on_cuda(q)) {
      checkpoints = recurrence_cuda::forward(params, keep_, q);
    } else {
      if (keep_ || split)
        checkpoints = at::empty({shape.segment_count, shape.heads, shape.dk, shape.dv}, f32);
      if (split) decays = at::empty({shape.segment_count, shape.heads}, f32);
      params.checkpoints = floats(checkpoints), params.segment_decays = floats(decays);
      recurrence_kernels::forward(params);
    }
    if (keep_) saved = {q, k, v, log_decay, checkpoints};
    return {o, end};
  }

  Tensors backward(const Tensors& saved, const Tensors& grads,
                   const std::vector<bool>& needs) const override {
    const at::Tensor &q = saved[kQ], &k = saved[kK], &v = saved[kV], &log_decay = saved[kLogDecay];
    const Plan plan(q, k, v, log_decay, cu_seqlens_, options_);
    const Shape& shape = plan.shape;
    const auto f32 = q.options().dtype(at::kFloat);
    const std::vector<int64_t> states{shape.segment_count, shape.heads, shape.dk, shape.dv};
    const at::Tensor grad_o = grads[0].defined()
                                  ? dense_rows(grads[0])
                                  : at::zeros({q.size(0), q.size(1), shape.heads, shape.dv}, v.options());
    const at::Tensor grad_end = grads[1].defined() ? grads[1].contiguous() : grads[1];
    const at::Tensor dq = at::empty(q.sizes(), q.options()), dk = at::empty(k.sizes(), k.options()),
                     dv = at::empty(v.sizes(), v.options());
    const at::Tensor d_start = at::empty({shape.sequence_count, shape.heads, shape.dk, shape.dv}, f32);
    Backward params{.shape = shape,
                    .q = strided(q),
                    .k = strided(k),
                    .v = strided(v),
                    .grad_o = strided(grad_o),
                    .dq = strided(dq),
                    .dk = strided(dk),
                    .dv = strided(dv),
                    .checkpoints = floats(saved[kCheckpoints]),
                    .grad_final_state = floats(grad_end),
                    .grad_initial_state = floats(d_start)};
    at::Tensor d_decay, partial, segment_grads, decays;
    if (needs[3] && shape.decay == Decay::kToken) {
      d_decay = at::empty(log_decay.sizes(), f32);
      params.d_log_decay = floats(d_decay), params.d_decay_row = d_decay.stride(0);
    } else if (needs[3] && shape.decay == Decay::kHead) {
      partial = at::empty({shape.segment_count, shape.heads}, f32.dtype(at::kDouble));
      params.d_head_decay = partial.mutable_data_ptr<double>();
    }
    params.split = q.is_cpu() && plan.split(shape.heads / group_heads(shape));
    if (params.split) {
      segment_grads = at::empty(states, f32), decays = at::empty({shape.segment_count, shape.heads}, f32);
      params.segment_grads = floats(segment_grads), params.segment_decays = floats(decays);
    }
    runs_on_cuda(q) ? recurrence_cuda::backward(params, q) : recurrence_kernels::backward(params);
    if (partial.defined()) d_decay = partial.sum(0).to(at::kFloat);
    return {dq, dk, dv, d_decay, needs[4] ? d_start : at::Tensor()};
  }

 private:
  at::Tensor cu_seqlens_;
  RecurrenceOptions options_;
  bool keep_;  // a gradient will be asked for
};

}  // namespace

RecurrenceOutput recurrence(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const at::Tensor& log_decay, const at::Tensor& initial_state,
                            const at::Tensor& cu_seqlens, const RecurrenceOptions& options) {
  const Tensors inputs{q, k, v, log_decay, initial_state};
  const bool keep = c10::GradMode::is_enabled() &&
                    std::any_of(inputs.begin(), inputs.end(),
                                [](const at::Tensor& x) { return x.defined() && x.requires_grad(); });
  const Tensors outputs =
      differentiable(recurrence_op(Implementation::fused, cu_seqlens, options, keep), inputs);
  return {outputs[0], outputs[1]};
}

RecurrenceOutput recurrence_by(Implementation implementation, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const at::Tensor& log_decay,
                               const at::Tensor& initial_state, const at::Tensor& cu_seqlens,
                               const RecurrenceOptions& options) {
  const bool fused = implementation == Implementation::fused;
  return (fused ? recurrence : recurrence_reference)(q, k, v, log_decay, initial_state, cu_seqlens, options);
}

std::shared_ptr<const FusedOp> recurrence_op(Implementation implementation, const at::Tensor& cu_seqlens,
                                             const RecurrenceOptions& options, bool keep) {
  if (implementation == Implementation::fused)
    return std::make_shared<RecurrenceOp>(cu_seqlens, options, keep);
  const auto reference = [cu_seqlens, options](const Tensors& in) -> Tensors {
    const auto [o, end] = recurrence_reference(in[0], in[1], in[2], in[3], in[4], cu_seqlens, options);
    return {o, end};
  };
  return recomputing_op(reference, 5);
}

}  // namespace longreach
