// The argument checks that the fused operator and its reference share.
#pragma once
#include "layers/ops/interval_attention/interval_attention.h"

namespace longreach {

// Throws ShapeError or DtypeError naming the argument.
void check_interval_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const IntervalMask& mask);
void check_interval_mask(const IntervalMask& mask, int64_t batch, int64_t heads, int64_t queries,
                         int64_t keys);

}  // namespace longreach
