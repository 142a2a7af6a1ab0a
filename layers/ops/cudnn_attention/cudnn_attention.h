// Dense softmax attention by cuDNN, through LibTorch's operators: the function of interval_attention without
// window, sinks, intervals and packed documents, on CUDA alone.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

namespace longreach {

struct CudnnAttentionOutput {
  at::Tensor o;    // [B, Tq, H, D], dtype of q
  at::Tensor lse;  // float32 [B, H, Tq], natural logarithm; for merging, not differentiable
};

// Why cuDNN does not compute attention of these shapes; empty where it does. It takes float16 and bfloat16,
// head dimensions that are multiples of 8 up to 128, two keys or more, causal queries as many as keys, or one
// query. Its backward pass has no deterministic form: `gradients` in a process that asks for determinism
// (at::Context) is a refusal. Looks at no device.
std::string cudnn_refusal(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal,
                          bool gradients);

// q [B, Tq, H, D], k [B, Tk, HK, D], v [B, Tk, HK, Dv] on CUDA; HK divides H. scale: default D^-1/2.
// Differentiable in q, k, v through o; memory linear in T. Throws ConfigError with the words of
// cudnn_refusal, ShapeError where interval_attention does.
CudnnAttentionOutput cudnn_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     bool causal, std::optional<double> scale = std::nullopt);

}  // namespace longreach
