// Softmax attention over any set of visible pairs, from the formula: what the references of the softmax
// operators share.
#pragma once
#include <ATen/core/Tensor.h>

namespace longreach {

struct MaskedAttention {
  at::Tensor o;        // [B, Tq, H, Dv], dtype of q
  at::Tensor lse;      // [B, H, Tq], float32 or, for float64, float64; -inf for rows that see nothing
  at::Tensor weights;  // [B, H, Tq, Tk], dtype of lse: P; rows that see nothing are 0
};

// q [B, Tq, H, Dqk], k [B, Tk, HK, Dqk], v [B, Tk, HV, Dv] of any floating dtype; visible: bool, broadcasts
// to [B, H, Tq, Tk]. Gradients by autograd.
MaskedAttention masked_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const at::Tensor& visible, double scale);

}  // namespace longreach
