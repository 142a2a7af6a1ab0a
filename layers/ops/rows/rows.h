// What a decoder computes between its matrix products, each row by itself: RMSNorm, the product of silu(gate)
// and up, the turn of the rotary embedding, the cross-entropy of logits. One pass over memory each way where
// there are kernels: on CUDA for all of them, on the CPU for the first three; float64, and the last on the
// CPU, go through plain tensor operations. Throws ShapeError or DtypeError naming the argument.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

namespace longreach {

// y = x rsqrt(mean(x^2) + eps) weight over the last dimension. x [..., C] of any floating dtype; weight [C]
// or undefined (1). Statistics and products in float32 (float64 for float64 x); y in `dtype`, default the
// dtype of x. Differentiable in x and weight; saves x and one number a row, where a taped formula would save
// several copies of x.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps,
                    std::optional<at::ScalarType> dtype = std::nullopt);

// silu(gate) * up of one shape, saving only its inputs for the gradient; the dtype of gate.
at::Tensor silu_product(const at::Tensor& gate, const at::Tensor& up);

// x [B, T, H, D] with feature i and i + D/2 turned as a pair by cos, sin [B, T, D/2], float32 (float64 for
// float64): the same shape and dtype, products in float32 (float64). Differentiable in x, as often as one
// likes.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

// The cross-entropy of logits [N, V] (dense rows, overwritten) and labels int64 [N], all in the vocabulary:
// nll [N] is written, float32 (float64 for float64), the sum of nll + z_loss lse^2 is added to `loss`,
// float64 []. -> d loss / d logits, undefined unless `gradient`. Not on the tape: its caller has the gradient
// already.
at::Tensor cross_entropy_rows(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& nll,
                              const at::Tensor& loss, double z_loss, bool gradient);

}  // namespace longreach
