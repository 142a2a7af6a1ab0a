// Linear recurrence over outer products, in chunks:
//
//   S_t = a_t S_{t-1} + k_t v_t^T,   o_t = scale q_t^T S_t,   S_0 = initial_state,  a_t = exp(log_decay_t) in
//   (0, 1]
//
// with a_t absent, constant per head, or one scalar a token and head (Lightning attention, arXiv 2401.04658;
// RetNet, 2307.08621; simple GLA / Mamba-2 scalar decay). Only non-positive exponents are ever formed.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "layers/ops/common/autograd.h"
#include "layers/ops/common/implementation.h"

namespace longreach {

struct RecurrenceOptions {
  double scale = 1.0;
  // Tokens a chunk on CPUs: 16, 32, 64 or 128 (CUDA: 64). Changes speed and rounding, not the result.
  int64_t chunk = 64;
};

struct RecurrenceOutput {
  at::Tensor o;  // [B, T, H, Dv], dtype of v
  // [N, H, Dk, Dv], float32 (float64 in the float64 reference): S after the last token of each sequence, not
  // decayed further; the initial state for an empty sequence.
  at::Tensor final_state;
};

// q [B, T, H, Dk], k [B, T, HK, Dk], v [B, T, HV, Dv]: float32 or bfloat16 (CUDA: float16 too), HK and HV
// divide H (head h reads key head h * HK / H); Dk 1..256, Dv 1..512. log_decay: undefined (no decay), [H]
// (constant per head) or [B, T, H] (a token); float32, <= 0, -inf forgets. initial_state: undefined (zero) or
// [N, H, Dk, Dv] float32, N = B, or the number of documents when packed. cu_seqlens: int32 [N+1] on the CPU
// when B = 1 holds packed documents; the state restarts at each. Differentiable in q, k, v, log_decay and
// initial_state, through o and final_state. States and sums are float32. Time O(T (chunk + Dk) Dv), work
// space O(T / chunk * Dk * Dv) a head for the backward pass. Throws ShapeError or DtypeError naming the
// argument.
RecurrenceOutput recurrence(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const at::Tensor& log_decay = {}, const at::Tensor& initial_state = {},
                            const at::Tensor& cu_seqlens = {}, const RecurrenceOptions& options = {});

// The same function token by token, any floating dtype.
RecurrenceOutput recurrence_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const at::Tensor& log_decay = {}, const at::Tensor& initial_state = {},
                                      const at::Tensor& cu_seqlens = {},
                                      const RecurrenceOptions& options = {});

// By the one or the other.
RecurrenceOutput recurrence_by(Implementation implementation, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const at::Tensor& log_decay = {},
                               const at::Tensor& initial_state = {}, const at::Tensor& cu_seqlens = {},
                               const RecurrenceOptions& options = {});

// For operators of which the recurrence is a part, and that learn only on the way what enters a sequence, or
// the gradient of what leaves it. Nothing of these records a tape.

// The recurrence: {q, k, v, log_decay, initial_state}, as above, -> {o, final_state}, and the gradients of
// all five from those of the two. keep: whether the backward pass is to follow.
std::shared_ptr<const FusedOp> recurrence_op(Implementation implementation, const at::Tensor& cu_seqlens,
                                             const RecurrenceOptions& options, bool keep);

// final_state alone, of `heads` heads that start from zero: about a third of a pass.
at::Tensor recurrence_final_state(Implementation implementation, const at::Tensor& k, const at::Tensor& v,
                                  int64_t heads, const at::Tensor& log_decay = {},
                                  const at::Tensor& cu_seqlens = {}, const RecurrenceOptions& options = {});

// The gradient of initial_state [N, H, Dk, Dv] alone, from grad_o [B, T, H, Dv], that of o: it needs neither
// k nor v. What comes through final_state is not in it: exp(sum of log_decay) times its gradient.
at::Tensor recurrence_start_gradient(Implementation implementation, const at::Tensor& q,
                                     const at::Tensor& grad_o, const at::Tensor& log_decay = {},
                                     const at::Tensor& cu_seqlens = {},
                                     const RecurrenceOptions& options = {});

}  // namespace longreach
