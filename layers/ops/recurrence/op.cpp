// The fused recurrence: checks the arguments, cuts sequences into segments, and runs the kernels behind
// autograd.
//
// Kept for the backward pass beside the inputs: the state at the start of each segment. A segment is about
// 8 Dk Dv / (Dk + Dv) tokens, so that these states take at most 1/8 of the memory of o, dq, dk and dv
// together. On CUDA every chunk is a segment, and all run side by side.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <numeric>

#include "layers/ops/common/autograd.h"
#include "layers/ops/common/check.h"
#include "layers/ops/common/kernel_input.h"
#include "layers/ops/document.h"
#include "layers/ops/recurrence/cuda/op.h"
#include "layers/ops/recurrence/kernels.h"
#include "layers/ops/recurrence/recurrence.h"

namespace longreach {
namespace {

using namespace recurrence_kernels;

// Below so many independent sequences x heads of the longest length, segments run side by side instead.
// Chosen by shapes alone: the two forms round differently, and bits must not depend on the machine.
constexpr int64_t kEnoughTasks = 8;
constexpr int64_t kLongestSegment = 16;  // chunks: bounds the states that a backward task computes again

float* floats(const at::Tensor& x) {
  return x.defined() ? static_cast<float*>(x.mutable_data_ptr()) : nullptr;
}

// Sizes, and the sequences with their segments.
struct Plan {
  Shape shape;
  std::vector<Sequence> sequences;
  int64_t tokens = 0, longest = 0;

  Plan(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& log_decay,
       const std::vector<int64_t>& bounds, const RecurrenceOptions& options) {
    shape.heads = q.size(2), shape.key_heads = k.size(2), shape.value_heads = v.size(2);
    shape.dk = q.size(3), shape.dv = v.size(3);
    shape.chunk = runs_on_cuda(q) ? recurrence_cuda::kCudaChunk : options.chunk;
    const int64_t wanted = ceil_div(8 * shape.dk * shape.dv / (shape.dk + shape.dv), shape.chunk);
    shape.segment =
        runs_on_cuda(q) ? shape.chunk : shape.chunk * std::clamp<int64_t>(wanted, 1, kLongestSegment);
    shape.scale = static_cast<float>(options.scale);
    shape.dtype = kernel_dtype(q);
    set_decay(log_decay);
    const auto add = [&](int64_t row, int64_t first, int64_t count) {
      sequences.push_back({row, first, count, shape.segment_count});
      shape.segment_count += ceil_div(count, shape.segment);
      tokens += count;
      longest = std::max(longest, count);
    };
    if (bounds.empty())
      for (int64_t b = 0; b < q.size(0); ++b) add(b, 0, q.size(1));
    else
      for (size_t n = 0; n + 1 < bounds.size(); ++n) add(0, bounds[n], bounds[n + 1] - bounds[n]);
    shape.sequences = sequences.data();
    shape.sequence_count = static_cast<int64_t>(sequences.size());
  }
  Plan(const Plan&) = delete;

  // Whether segments run side by side when each sequence gives `tasks` independent tasks.
  bool split(int64_t tasks) const {
    return longest > shape.segment && tokens * tasks < longest * kEnoughTasks;
  }

 private:
  void set_decay(const at::Tensor& log_decay) {
    if (!log_decay.defined()) return;
    shape.decay = log_decay.dim() == 1 ? Decay::kHead : Decay::kToken;
    shape.log_decay = log_decay.const_data_ptr<float>();
    shape.decay_head = log_decay.stride(-1);
    if (shape.decay == Decay::kToken)
      shape.decay_row = log_decay.stride(0), shape.decay_token = log_decay.stride(1);
  }
};

enum Saved : size_t { kQ, kK, kV, kLogDecay, kCheckpoints };

class RecurrenceOp final : public FusedOp {
 public:
  RecurrenceOp(std::vector<int64_t> bounds, RecurrenceOptions options, bool keep)
      : bounds_(std::move(bounds)), options_(options), keep_(keep) {}

  std::string name() const override { return "recurrence"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    const at::Tensor q = dense_rows(inputs[0]), k = dense_rows(inputs[1]), v = dense_rows(inputs[2]);
    const at::Tensor &log_decay = inputs[3], start = inputs[4].defined() ? inputs[4].contiguous() : inputs[4];
    const Plan plan(q, k, v, log_decay, bounds_, options_);
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
    const Plan plan(q, k, v, log_decay, bounds_, options_);
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
  std::vector<int64_t> bounds_;
  RecurrenceOptions options_;
  bool keep_;  // a gradient will be asked for
};

void check_inputs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  expect_kernel_input(q, "recurrence: q");
  expect_shape(q, "recurrence: q", {-1, -1, -1, -1});
  const int64_t batch = q.size(0), tokens = q.size(1), heads = q.size(2);
  check<ShapeError>(heads >= 1, "recurrence: q: shape ", q.sizes(), ", expected at least one head");
  check<ShapeError>(q.size(3) >= 1 && q.size(3) <= 256, "recurrence: q: Dk = ", q.size(3),
                    ", expected 1 to 256");
  const auto check_heads = [&](const at::Tensor& x, const char* name, int64_t dim) {
    expect_dtype(x, name, {q.scalar_type()});
    expect_shape(x, name, {batch, tokens, -1, dim});
    expect_same_device(x, name, q, "q");
    check<ShapeError>(x.size(2) >= 1 && heads % x.size(2) == 0, name, ": ", x.size(2),
                      " heads, expected a divisor of the ", heads, " of q");
  };
  check_heads(k, "recurrence: k", q.size(3));
  check_heads(v, "recurrence: v", -1);
  check<ShapeError>(v.size(3) >= 1 && v.size(3) <= 512, "recurrence: v: Dv = ", v.size(3),
                    ", expected 1 to 512");
}

}  // namespace

RecurrenceOutput recurrence(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const at::Tensor& log_decay, const at::Tensor& initial_state,
                            const at::Tensor& cu_seqlens, const RecurrenceOptions& options) {
  check_inputs(q, k, v);
  const int64_t batch = q.size(0), tokens = q.size(1), heads = q.size(2);
  const int64_t chunk = options.chunk;
  check<ShapeError>(chunk == 16 || chunk == 32 || chunk == 64 || chunk == 128, "recurrence: chunk = ", chunk,
                    ", expected 16, 32, 64 or 128");
  if (log_decay.defined()) {
    expect_dtype(log_decay, "recurrence: log_decay", {at::kFloat});
    expect_same_device(log_decay, "recurrence: log_decay", q, "q");
    if (log_decay.dim() == 1)
      expect_shape(log_decay, "recurrence: log_decay", {heads});
    else
      expect_shape(log_decay, "recurrence: log_decay", {batch, tokens, heads});
  }
  std::vector<int64_t> bounds;
  if (cu_seqlens.defined()) {
    check<ShapeError>(batch == 1, "recurrence: cu_seqlens: packed documents need one row, q has shape ",
                      q.sizes());
    expect_cu_seqlens(cu_seqlens, "recurrence: cu_seqlens", tokens);
    const int32_t* first = cu_seqlens.const_data_ptr<int32_t>();
    bounds.assign(first, first + cu_seqlens.numel());
  }
  if (initial_state.defined()) {
    const int64_t sequences = bounds.empty() ? batch : static_cast<int64_t>(bounds.size()) - 1;
    expect_dtype(initial_state, "recurrence: initial_state", {at::kFloat});
    expect_shape(initial_state, "recurrence: initial_state", {sequences, heads, q.size(3), v.size(3)});
    expect_same_device(initial_state, "recurrence: initial_state", q, "q");
  }
  const Tensors inputs{q, k, v, log_decay, initial_state};
  const bool keep = c10::GradMode::is_enabled() &&
                    std::any_of(inputs.begin(), inputs.end(),
                                [](const at::Tensor& x) { return x.defined() && x.requires_grad(); });
  const Tensors outputs =
      differentiable(std::make_shared<RecurrenceOp>(std::move(bounds), options, keep), inputs);
  return {outputs[0], outputs[1]};
}

RecurrenceOutput recurrence_by(Implementation implementation, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const at::Tensor& log_decay,
                               const at::Tensor& initial_state, const at::Tensor& cu_seqlens,
                               const RecurrenceOptions& options) {
  const bool fused = implementation == Implementation::fused;
  return (fused ? recurrence : recurrence_reference)(q, k, v, log_decay, initial_state, cu_seqlens, options);
}

}  // namespace longreach
