// Launch plans of interval attention on CUDA: from shapes and device pointers to kernels, grids and
// parameters. Plain functions without torch or CUDA (cuda::Plan says how they are used).
//
// Params and Gradients (kernels.h) hold device pointers, but for cu_queries and cu_keys, which are read here.
#pragma once
#include <span>
#include <string>

#include "layers/ops/cuda/attention/head_dims.h"
#include "layers/ops/cuda/launch.h"
#include "layers/ops/interval_attention/kernels.h"

namespace longreach::interval {

using cuda::attention::HeadDims;

enum class ForwardPath { kAuto, kTiles, kDecode };

struct CudaOptions {
  int multiprocessors = 108;  // of the device: how many splits decoding needs to fill it
  // Its compute capability, major and minor digit; 90 has kernels of its own (dense_plan.h)
  int architecture = 80;
  // kAuto: decode where a document's rows fill two small tiles at most
  ForwardPath path = ForwardPath::kAuto;
  int splits = 0;  // of decoding; 0: by the number of multiprocessors
};

// Writes o and lse. dtype float32, bfloat16 or float16; any strides with a dense last dimension: rows of q, k
// and v that are not 16-byte aligned are copied to work space first.
// Throws DtypeError, or ShapeError for head dims above those built (naming them) and 2^29 tokens or more.
cuda::Plan plan_forward(const Params& params, void* workspace, const CudaOptions& options = {});

// Writes dq, dk and dv from o and lse of the forward pass. Work space: 8 bytes a query and head; fp32 parts
// of dk and dv where key and value heads differ in number.
cuda::Plan plan_backward(const Params& params, const Gradients& gradients, void* workspace,
                         const CudaOptions& options = {});

// The built pair of head dims that serves this one; throws ShapeError.
HeadDims built_head_dims(DType dtype, int64_t qk, int64_t v);

// All built pairs, and as text: "32/32, 64/64, ...".
std::span<const HeadDims> built_head_dims(DType dtype);
std::string built_head_dims_text(DType dtype);

}  // namespace longreach::interval
