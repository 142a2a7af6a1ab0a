// LibTorch's operators stand in libtorch_cpu, which dispatches them to libtorch_cuda, so nothing of CUDA is
// linked here. They take [B, H, T, D] of any strides and like best what ours is when transposed.
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention_backward.h>

#include "layers/ops/common/autograd.h"
#include "layers/ops/common/check.h"
#include "layers/ops/cudnn_attention/cudnn_attention.h"

namespace longreach {
namespace {

at::Tensor heads_first(const at::Tensor& x) {
  return (x.stride(-1) == 1 ? x : x.contiguous()).transpose(1, 2);
}

class CudnnAttention final : public FusedOp {
 public:
  CudnnAttention(bool causal, std::optional<double> scale) : causal_(causal), scale_(scale) {}

  std::string name() const override { return "cudnn_attention"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    const at::Tensor q = heads_first(inputs[0]), k = heads_first(inputs[1]), v = heads_first(inputs[2]);
    auto [o, lse, cu_queries, cu_keys, queries, keys, seed, offset, mask] =
        at::_scaled_dot_product_cudnn_attention(q, k, v, {}, /*compute_log_sumexp=*/true, /*dropout_p=*/0.0,
                                                causal_, /*return_debug_mask=*/false, scale_);
    saved = {q, k, v, o, lse, cu_queries, cu_keys, seed, offset};
    return {o.transpose(1, 2), lse.view({q.size(0), q.size(1), q.size(2)})};
  }

  Tensors backward(const Tensors& saved, const Tensors& grads, const std::vector<bool>&) const override {
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &o = saved[3], &lse = saved[4];
    check<Error>(!grads[1].defined(), "cudnn_attention: a gradient of lse; interval_attention has one");
    if (!grads[0].defined()) return Tensors(3);
    auto [dq, dk, dv] = at::_scaled_dot_product_cudnn_attention_backward(
        grads[0].contiguous().transpose(1, 2), q, k, v, o, lse, saved[7], saved[8], {}, saved[5], saved[6],
        q.size(2), k.size(2), /*dropout_p=*/0.0, causal_, scale_);
    return {dq.transpose(1, 2), dk.transpose(1, 2), dv.transpose(1, 2)};
  }

 private:
  bool causal_;
  std::optional<double> scale_;
};

}  // namespace

std::string cudnn_refusal(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal,
                          bool gradients) {
  constexpr int64_t kLongestHead = 128, kHeadStep = 8, kLargestGrid = 65535;
  if (q.scalar_type() != at::kHalf && q.scalar_type() != at::kBFloat16)
    return text("dtype ", c10::toString(q.scalar_type()), "; it takes float16 and bfloat16");
  for (const int64_t size : {q.size(3), v.size(3)})
    if (size % kHeadStep != 0 || size > kLongestHead)
      return text("head dimension ", size, "; it takes multiples of ", kHeadStep, " up to ", kLongestHead);
  if (q.size(0) > kLargestGrid || q.size(2) > kLargestGrid)
    return text("batch ", q.size(0), " of ", q.size(2), " heads; it takes up to ", kLargestGrid, " of each");
  if (q.size(0) == 0 || q.size(1) == 0 || k.size(1) < 2)
    return text(q.size(0), " x ", q.size(1), " queries, ", k.size(1),
                " keys; it takes one query and two keys at least");
  if (causal && q.size(1) != k.size(1) && q.size(1) != 1)
    return text(q.size(1), " queries of ", k.size(1), " keys; causal, it takes as many as keys, or one");
  if (gradients && at::globalContext().deterministicAlgorithms())
    return "its backward pass is not deterministic; training.deterministic = false allows that";
  return "";
}

CudnnAttentionOutput cudnn_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     bool causal, std::optional<double> scale) {
  expect_attention_inputs(q, k, v);
  expect_shape(v, "v", {k.size(0), k.size(1), k.size(2), -1});
  const bool gradients =
      at::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad());
  const std::string refusal = cudnn_refusal(q, k, v, causal, gradients);
  check<ConfigError>(refusal.empty(), "cuDNN attention: ", refusal);
  // One query stands at the end, where it sees every key; cuDNN's causal mask would put it at the beginning.
  const bool masked = causal && q.size(1) > 1;
  const Tensors out = differentiable(std::make_shared<CudnnAttention>(masked, scale), {q, k, v});
  return {out[0], out[1].detach()};
}

}  // namespace longreach
