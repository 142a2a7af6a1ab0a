// LRPE, linearised relative positions (arXiv 2307.09270): x -> [x cos(t theta) | x sin(t theta)], so that the
// product of two rotated features depends on the difference of their positions.
#pragma once
#include <ATen/core/Tensor.h>

#include <utility>

namespace longreach::lightning {

// q, k [B, T, H, D], positions int64 [B, T], theta [H, 1, D] -> [B, T, H, 2D] each, in the dtype of q. Angles
// in float64, products in float32 (float64 for float64). Differentiable in q, k and theta.
std::pair<at::Tensor, at::Tensor> lrpe(const at::Tensor& q, const at::Tensor& k, const at::Tensor& positions,
                                       const at::Tensor& theta);

// theta [H, 1, D]: 10000^(-2 i / (H D)), i running over all H D features.
at::Tensor lrpe_theta(int64_t heads, int64_t head_dim);

}  // namespace longreach::lightning
