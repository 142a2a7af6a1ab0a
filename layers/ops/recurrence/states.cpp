// The first half of each pass: what a state becomes over whole sequences, without what every token makes of
// it. On CUDA these are the kernels of the pass up to its scan.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include "layers/ops/common/check.h"
#include "layers/ops/recurrence/checks.h"
#include "layers/ops/recurrence/recurrence.h"
#include "layers/ops/recurrence/segments.h"

namespace longreach {
namespace {

using namespace recurrence_kernels;

// Final states, of k and v alone.
at::Tensor final_states(const at::Tensor& keys, const at::Tensor& values, int64_t heads,
                        const at::Tensor& log_decay, const at::Tensor& cu_seqlens,
                        const RecurrenceOptions& options) {
  expect_shape(keys, "recurrence: k", {-1, -1, -1, -1});
  const at::Tensor k = dense_rows(keys), v = dense_rows(values);
  const at::Tensor sizes_of_q = k.narrow(2, 0, 1).expand({k.size(0), k.size(1), heads, k.size(3)});
  check_recurrence(sizes_of_q, k, v, log_decay, {}, cu_seqlens, options);
  const Plan plan(sizes_of_q, k, v, log_decay, cu_seqlens, options);
  const Shape& shape = plan.shape;
  const auto f32 = k.options().dtype(at::kFloat);
  const at::Tensor end = at::empty({shape.sequence_count, heads, shape.dk, shape.dv}, f32);
  Forward params{.shape = shape,
                 .k = strided(k),
                 .v = strided(v),
                 .final_state = floats(end),
                 .split = k.is_cpu() && plan.split(heads),
                 .outputs = false};
  if (runs_on_cuda(k)) {
    recurrence_cuda::forward(params, false, k);
    return end;
  }
  at::Tensor sums, decays;
  if (params.split) {
    sums = at::empty({shape.segment_count, heads, shape.dk, shape.dv}, f32);
    decays = at::empty({shape.segment_count, heads}, f32);
    params.checkpoints = floats(sums), params.segment_decays = floats(decays);
  }
  recurrence_kernels::forward(params);
  return end;
}

// The gradient of initial states, of q and grad_o alone.
at::Tensor start_gradient(const at::Tensor& queries, const at::Tensor& grads, const at::Tensor& log_decay,
                          const at::Tensor& cu_seqlens, const RecurrenceOptions& options) {
  const at::Tensor q = dense_rows(queries), grad_o = dense_rows(grads);
  check_recurrence(q, q, grad_o, log_decay, {}, cu_seqlens, options);
  const Plan plan(q, q, grad_o, log_decay, cu_seqlens, options);
  const Shape& shape = plan.shape;
  const auto f32 = q.options().dtype(at::kFloat);
  const at::Tensor start = at::empty({shape.sequence_count, shape.heads, shape.dk, shape.dv}, f32);
  Backward params{.shape = shape,
                  .q = strided(q),
                  .grad_o = strided(grad_o),
                  .grad_initial_state = floats(start),
                  .split = q.is_cpu() && plan.split(shape.heads),
                  .inputs = false};
  at::Tensor sums, decays;
  if (params.split) {
    sums = at::empty({shape.segment_count, shape.heads, shape.dk, shape.dv}, f32);
    decays = at::empty({shape.segment_count, shape.heads}, f32);
    params.segment_grads = floats(sums), params.segment_decays = floats(decays);
  }
  runs_on_cuda(q) ? recurrence_cuda::backward(params, q) : recurrence_kernels::backward(params);
  return start;
}

at::Tensor final_states_reference(const at::Tensor& k, const at::Tensor& v, int64_t heads,
                                  const at::Tensor& log_decay, const at::Tensor& cu_seqlens,
                                  const RecurrenceOptions& options) {
  const at::NoGradGuard no_grad;
  const at::Tensor q = at::zeros({k.size(0), k.size(1), heads, k.size(3)}, k.options());
  return recurrence_reference(q, k, v, log_decay, {}, cu_seqlens, options).final_state;
}

at::Tensor start_gradient_reference(const at::Tensor& q, const at::Tensor& grad_o,
                                    const at::Tensor& log_decay, const at::Tensor& cu_seqlens,
                                    const RecurrenceOptions& options) {
  const int64_t sequences = cu_seqlens.defined() ? cu_seqlens.numel() - 1 : q.size(0);
  const auto state = q.options().dtype(q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  at::Tensor start = at::zeros({sequences, q.size(2), q.size(3), grad_o.size(3)}, state);
  if (q.size(1) == 0) return start;
  const at::AutoGradMode with_tape(true);
  start.requires_grad_(true);
  const at::Tensor k = at::zeros(q.sizes(), q.options()), v = at::zeros(grad_o.sizes(), grad_o.options());
  const at::Tensor o =
      recurrence_reference(q.detach(), k, v, log_decay.defined() ? log_decay.detach() : log_decay, start,
                           cu_seqlens, options)
          .o;
  return torch::autograd::grad({o}, {start}, {grad_o})[0];
}

}  // namespace

at::Tensor recurrence_final_state(Implementation implementation, const at::Tensor& k, const at::Tensor& v,
                                  int64_t heads, const at::Tensor& log_decay, const at::Tensor& cu_seqlens,
                                  const RecurrenceOptions& options) {
  const bool fused = implementation == Implementation::fused;
  return (fused ? final_states : final_states_reference)(k, v, heads, log_decay, cu_seqlens, options);
}

at::Tensor recurrence_start_gradient(Implementation implementation, const at::Tensor& q,
                                     const at::Tensor& grad_o, const at::Tensor& log_decay,
                                     const at::Tensor& cu_seqlens, const RecurrenceOptions& options) {
  const bool fused = implementation == Implementation::fused;
  return (fused ? start_gradient : start_gradient_reference)(q, grad_o, log_decay, cu_seqlens, options);
}

}  // namespace longreach
