// Joins softmax attention over disjoint key sets: o = sum_p exp(lse_p - lse) o_p, lse = log sum_p exp(lse_p).
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "layers/ops/common/implementation.h"
#include "layers/ops/interval_attention/interval_attention.h"

namespace longreach {

// parts: o [B, T, H, D] and lse [B, H, T] each, of equal shapes; a part with lse = -inf adds nothing, and
// where every part is empty the result is 0 and -inf. Differentiable through o and lse. Fixed order: left to
// right.
IntervalAttentionOutput merge_attention(const std::vector<IntervalAttentionOutput>& parts);
IntervalAttentionOutput merge_attention_reference(const std::vector<IntervalAttentionOutput>& parts);
// By the one or the other.
IntervalAttentionOutput merge_attention_by(Implementation implementation,
                                           const std::vector<IntervalAttentionOutput>& parts);

}  // namespace longreach
