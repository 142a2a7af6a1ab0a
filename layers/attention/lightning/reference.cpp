// Lightning attention from its formula.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include "layers/attention/lightning/lightning.h"
#include "layers/ops/common/check.h"

namespace longreach {
namespace {

// One sequence a row; state [B, H, Dk, D] or undefined.
LightningAttentionOutput whole(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const at::Tensor& log_decay, double scale, const at::Tensor& initial_state) {
  const int64_t tokens = q.size(1);
  const at::Tensor qh = q.transpose(1, 2), kh = k.transpose(1, 2), vh = v.transpose(1, 2);  // [B, H, T, .]
  const at::Tensor decay = log_decay.to(q.device(), q.scalar_type()).view({-1, 1, 1});      // [H, 1, 1]
  const at::Tensor j = at::arange(tokens, q.options()), distance = j.unsqueeze(1) - j;
  const at::Tensor mask = (decay * distance.clamp_min(0)).exp() * (distance >= 0);
  at::Tensor o = (qh.matmul(kh.transpose(2, 3)) * mask).matmul(vh) * scale;
  const at::Tensor to_end = (decay * (static_cast<double>(tokens - 1) - j).unsqueeze(1)).exp();
  at::Tensor state = (kh * to_end).transpose(2, 3).matmul(vh);
  if (initial_state.defined()) {
    const at::Tensor start = initial_state.to(q.scalar_type());
    o = o + (qh * (decay * (j + 1.0).unsqueeze(1)).exp()).matmul(start) * scale;
    state = state + start * (decay * static_cast<double>(tokens)).exp();
  }
  return {o.transpose(1, 2), state};
}

}  // namespace

LightningAttentionOutput lightning_attention_reference(const at::Tensor& q, const at::Tensor& k,
                                                       const at::Tensor& v, const at::Tensor& log_decay,
                                                       double scale, const at::Tensor& initial_state,
                                                       const at::Tensor& cu_seqlens) {
  if (!cu_seqlens.defined()) return whole(q, k, v, log_decay, scale, initial_state);
  expect_cu_seqlens(cu_seqlens, "cu_seqlens", q.size(1));
  if (cu_seqlens.numel() == 1) {  // no document: a row without tokens, and no state
    const auto none = whole(q, k, v, log_decay, scale, {});
    return {none.o, initial_state.defined() ? initial_state.to(q.scalar_type()) : none.state.narrow(0, 0, 0)};
  }
  const int32_t* bounds = cu_seqlens.const_data_ptr<int32_t>();
  std::vector<at::Tensor> outputs, states;
  for (int64_t i = 0; i + 1 < cu_seqlens.numel(); ++i) {
    const auto piece = [&](const at::Tensor& x) { return x.narrow(1, bounds[i], bounds[i + 1] - bounds[i]); };
    const at::Tensor start = initial_state.defined() ? initial_state.narrow(0, i, 1) : initial_state;
    auto document = whole(piece(q), piece(k), piece(v), log_decay, scale, start);
    outputs.push_back(document.o);
    states.push_back(document.state);
  }
  return {at::cat(outputs, 1), at::cat(states, 0)};
}

}  // namespace longreach
