// The CUDA kernels of rows.h on tensors: what op.cpp calls where runs_on_cuda
// (layers/ops/common/kernel_input.h). Types: float32, bfloat16, float16; anything else is a DtypeError that
// names the argument and what is built, never another path.
#pragma once
#include <ATen/core/Tensor.h>

namespace longreach::cuda {

struct NormOutput {
  at::Tensor y;     // shape of x, in `dtype`
  at::Tensor rstd;  // float32 [rows], for the gradient
};

// weight [C] or undefined. x in `dtype`, or float32 and y in any; C 1 to 16384.
NormOutput rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType dtype);

struct NormGradients {
  at::Tensor dx;       // contiguous, dtype of x
  at::Tensor dweight;  // float32 [C], undefined unless wanted
};
NormGradients rms_norm_grad(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rstd,
                            const at::Tensor& dy, bool dweight_wanted);

// x [B, T, H, D] turned by cos and sin, float32 [B, T, D/2]; direction -1 turns back.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, double direction);

// silu(gate) up, and its gradients.
at::Tensor silu_product(const at::Tensor& gate, const at::Tensor& up);
struct SiluGradients {
  at::Tensor dgate, dup;
};
SiluGradients silu_product_grad(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& dy);

// logits [N, V] with dense rows become their gradient where `gradient`; nll float32 [N] is written,
// loss float64 [] is added to. labels int64 [N], all in the vocabulary.
void cross_entropy(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& nll,
                   const at::Tensor& loss, double z_loss, bool gradient);

}  // namespace longreach::cuda
