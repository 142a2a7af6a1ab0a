// rows.h by plain tensor operations, any floating dtype, with the gradients written out: what tensors take
// that no kernel is built for. Not a public header.
#pragma once
#include <ATen/core/Tensor.h>

namespace longreach::row_reference {

struct Norm {
  at::Tensor y, rstd;  // rstd [..., 1], float32 or float64
};
Norm rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType dtype);

// Undefined where not wanted.
struct NormGradients {
  at::Tensor dx, dweight;
};
NormGradients rms_norm_grad(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rstd,
                            const at::Tensor& dy, bool dx_wanted, bool dweight_wanted);

at::Tensor silu_product(const at::Tensor& gate, const at::Tensor& up);
// Undefined where not wanted.
struct SiluGradients {
  at::Tensor dgate, dup;
};
SiluGradients silu_product_grad(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& dy,
                                bool dgate_wanted, bool dup_wanted);

// direction -1 turns back.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, double direction);

at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& nll,
                         const at::Tensor& loss, double z_loss, bool gradient);

}  // namespace longreach::row_reference
