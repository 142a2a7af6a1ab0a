// The vectors of operators, as far as they are no mechanism's; each function stands in its operator's
// verify.cpp.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "layers/ops/interval_attention/interval_attention.h"
#include "train/verify/case.h"

namespace longreach::verify {

void verify_retention(Case& run);   // recurrence; arXiv 2307.08621
void verify_simple_gla(Case& run);  // recurrence: one scalar decay a token and head
void verify_lse_merge(Case& run);   // merge: block-sparse attention cut into key partitions
void verify_longlora(Case& run);    // interval_attention; arXiv 2309.12307, forms without a roll
void verify_topk_token(
    Case& run);  // selection: exact top-k tokens of each query, or of a kv group by soft votes

// The rest runs an operator as the case says, fused or by its formula, for whatever is built on it.

IntervalAttentionOutput attend(const Case& run, const Qkv& in, const IntervalMask& mask, double scale);
// lo, hi [H, T], or [T] for all heads.
IntervalMask interval(const at::Tensor& lo, const at::Tensor& hi);
IntervalAttentionOutput merge(const Case& run, const std::vector<IntervalAttentionOutput>& parts);

// The recurrence on in.q, in.k, in.v and the optional in.initial_state and in.cu_seqlens. The scale is the
// file's, or this power of the head dimension.
void run_recurrence(Case& run, const at::Tensor& log_decay, double default_scale_power);

}  // namespace longreach::verify
