// What every fused operator asks of its inputs.
#pragma once
#include <ATen/core/Tensor.h>

#include <string_view>

#include "layers/ops/dtype.h"
#include "layers/ops/strided.h"

namespace longreach {

// Whether an operator runs its CUDA kernels for this tensor: one on CUDA, or any while tests have replaced
// the device (layers/ops/cuda/backend.h).
bool runs_on_cuda(const at::Tensor& tensor);

// On the CPU float32 or bfloat16, on CUDA float16 too. Throws ShapeError or DtypeError naming the argument.
void expect_kernel_input(const at::Tensor& tensor, std::string_view name);

// The kernels' name of the dtype of such a tensor.
DType kernel_dtype(const at::Tensor& tensor);

// x, or a copy where its last dimension is not dense.
at::Tensor dense_rows(const at::Tensor& x);

// Where x [batch, token, head, element] lies; its last dimension is dense.
Strided strided(const at::Tensor& x);

}  // namespace longreach
