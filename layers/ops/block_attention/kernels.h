// What the kernels of block attention take: plain pointers and strides, no torch. block_attention.h has the
// equations and the meaning of the lists.
#pragma once
#include <cstdint>

#include "layers/ops/cpu/softmax_inputs.h"
#include "layers/ops/document.h"
#include "layers/ops/dtype.h"

namespace longreach::block {

using softmax_tile::Bf16Product;
using softmax_tile::Gradients;

struct Params {
  DType dtype;
  Bf16Product bf16_product;  // CPU
  int64_t batches, queries, keys, heads, key_heads, value_heads, qk_size, v_size;
  float scale;
  Strided q, k, v, o;
  float* lse;  // [batches, heads, queries]
  bool causal;
  int64_t query_block, key_block;
  // [list_batches, list_heads, rows, slots], dense: list_batches is 1 or batches, list_heads divides heads.
  const int32_t* indices;
  int64_t list_batches, list_heads, rows, slots;
  // In host memory. Row r of a document speaks for its queries [r query_block, (r + 1) query_block); query i
  // of a document stands at its key i + keys - queries.
  const PackedDocument* documents;
  int64_t document_count;
  // Null, or [batches, heads or (per_list) list_heads, rows, slots]: both or neither, written whole.
  float *block_max, *block_sum;
  bool per_list;
};

// Writes o, lse and the statistics.
void forward_cpu(const Params& params);

// Writes dq, dk, dv from o and lse of the forward pass; reads no statistics.
void backward_cpu(const Params& params, const Gradients& gradients);

}  // namespace longreach::block
