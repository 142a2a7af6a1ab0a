// The recurrence token by token, as its definition reads: no chunks, no products of decays, any floating
// dtype. Gradients come from autograd; this is what every faster form is held to.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include "layers/ops/common/check.h"
#include "layers/ops/recurrence/recurrence.h"

namespace longreach {
namespace {

// Head axis 2: every key or value head is read by heads / size heads, in order.
at::Tensor to_heads(const at::Tensor& x, int64_t heads, at::ScalarType state) {
  return x.to(state).repeat_interleave(heads / x.size(2), 2);
}

// One run of tokens: q, k [B, T, H, Dk], v [B, T, H, Dv], log_decay [H], [B, T, H] or undefined, state [B, H,
// Dk, Dv]. Returns o [B, T, H, Dv] and replaces the state.
at::Tensor run(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& log_decay,
               double scale, at::Tensor& state) {
  const int64_t tokens = q.size(1);
  if (tokens == 0) return (q * k).sum(-1, true) * v;  // nothing, on the tape like any other output
  const at::Tensor decay = log_decay.defined() ? log_decay.to(state.scalar_type()).exp() : at::Tensor();
  std::vector<at::Tensor> outputs;
  for (int64_t t = 0; t < tokens; ++t) {
    if (decay.defined())
      state = state * (decay.dim() == 1 ? decay : decay.select(1, t)).unsqueeze(-1).unsqueeze(-1);
    state = state + k.select(1, t).unsqueeze(-1) * v.select(1, t).unsqueeze(-2);
    outputs.push_back(q.select(1, t).unsqueeze(-2).matmul(state).squeeze(-2) * scale);
  }
  return at::stack(outputs, 1);
}

}  // namespace

RecurrenceOutput recurrence_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const at::Tensor& log_decay, const at::Tensor& initial_state,
                                      const at::Tensor& cu_seqlens, const RecurrenceOptions& options) {
  const auto state_type = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t heads = q.size(2), dk = q.size(3), dv = v.size(3);
  const bool packed = cu_seqlens.defined();
  if (packed) expect_cu_seqlens(cu_seqlens, "cu_seqlens", q.size(1));
  const int64_t sequences = packed ? cu_seqlens.numel() - 1 : q.size(0);
  const at::Tensor queries = q.to(state_type), keys = to_heads(k, heads, state_type),
                   values = to_heads(v, heads, state_type);
  at::Tensor state = initial_state.defined()
                         ? initial_state.to(state_type)
                         : at::zeros({sequences, heads, dk, dv}, q.options().dtype(state_type));
  if (!packed || sequences == 0) {  // no document is a row without tokens
    const at::Tensor o = run(queries, keys, values, log_decay, options.scale, state);
    return {o.to(v.scalar_type()), state};
  }
  std::vector<at::Tensor> outputs, states;
  const int32_t* bounds = cu_seqlens.const_data_ptr<int32_t>();
  for (int64_t n = 0; n < sequences; ++n) {
    const auto piece = [&](const at::Tensor& x) { return x.slice(1, bounds[n], bounds[n + 1]); };
    at::Tensor own = state.narrow(0, n, 1);
    outputs.push_back(run(piece(queries), piece(keys), piece(values),
                          log_decay.defined() && log_decay.dim() == 3 ? piece(log_decay) : log_decay,
                          options.scale, own));
    states.push_back(own);
  }
  return {at::cat(outputs, 1).to(v.scalar_type()), at::cat(states, 0)};
}

}  // namespace longreach
