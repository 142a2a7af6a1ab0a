// Launch plans of block attention on CUDA: from shapes and device pointers to kernels, grids and parameters.
// Plain functions without torch or CUDA, used as cuda::Plan says.
//
// Params and Gradients (kernels.h) hold device pointers, but for documents, which are read here.
#pragma once
#include <span>

#include "layers/ops/block_attention/kernels.h"
#include "layers/ops/cuda/attention/head_dims.h"
#include "layers/ops/cuda/launch.h"

namespace longreach::block {

using cuda::attention::HeadDims;

// Writes o and lse, and the statistics where they are asked for. dtype float32, bfloat16 or float16; any
// strides with a dense last dimension: rows of q, k and v that are not 16-byte aligned are copied to work
// space first. Throws DtypeError, or ShapeError for head dims above those built (naming them) and 2^29 tokens
// or more.
cuda::Plan plan_forward(const Params& params, void* workspace);

// Writes dq, dk and dv from o and lse of the forward pass. Work space: 8 bytes a query and head; the lists
// turned round (4 bytes an entry, at most 256 counters of 4 bytes a key block of each list); fp32 parts of dk
// and dv where key and value heads differ in number.
cuda::Plan plan_backward(const Params& params, const Gradients& gradients, void* workspace);

// All pairs of head dims that are built.
std::span<const HeadDims> built_head_dims(DType dtype);

}  // namespace longreach::block
