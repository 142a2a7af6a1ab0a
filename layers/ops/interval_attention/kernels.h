// What the kernels of interval attention take: plain pointers and strides, no torch. interval_attention.h has
// the equations and the meaning of the mask.
#pragma once
#include <cstdint>

#include "layers/ops/cpu/softmax_inputs.h"
#include "layers/ops/dtype.h"

namespace longreach::interval {

using softmax_tile::Bf16Product;
using softmax_tile::Gradients;

struct Params {
  DType dtype;
  Bf16Product bf16_product;
  int64_t batches, queries, keys, heads, key_heads, value_heads, qk_size, v_size;
  float scale;
  Strided q, k, v, o;
  float* lse;  // [batches, heads, queries]
  bool causal;
  int64_t window, sinks;  // window 0: no limit
  // Null, or [mask_batches, mask_heads, queries]: mask_batches is 1 or batches, mask_heads divides heads.
  const int32_t *lo, *hi;
  int64_t mask_batches, mask_heads;
  // Null, or [documents + 1].
  const int32_t *cu_queries, *cu_keys;
  int64_t documents;
};

// Writes o and lse.
void forward_cpu(const Params& params);

// Writes dq, dk, dv from o and lse of the forward pass.
void backward_cpu(const Params& params, const Gradients& gradients);

}  // namespace longreach::interval
