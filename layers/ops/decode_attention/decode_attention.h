// interval_attention of queries that are being decoded: few of them, many keys in a cache.
#pragma once
#include <ATen/core/Tensor.h>

#include "layers/ops/interval_attention/interval_attention.h"

namespace longreach {

// The output o [B, Tq, H, Dv] of interval_attention(q, k, v, mask), for whole rows (no packed documents) and
// intervals that all rows and heads share (lo and hi [1, 1, Tq]). Up to four queries take a kernel of their
// own on the CPU, in float32 or bfloat16, whose sums come in another order; more, and other devices, take
// that of interval_attention. No gradient. Throws ShapeError or DtypeError naming the argument.
at::Tensor decode_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const IntervalMask& mask = {});

}  // namespace longreach
