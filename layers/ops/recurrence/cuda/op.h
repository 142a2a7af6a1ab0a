// The recurrence on CUDA tensors: work space, launch plans, the device. Pointers of the parameters are those
// of CUDA tensors, `like` is one of them; chunk and segment are kCudaChunk.
#pragma once
#include <ATen/core/Tensor.h>

#include "layers/ops/recurrence/kernels.h"

namespace longreach::recurrence_cuda {

inline constexpr int64_t kCudaChunk = 64;

// Fills o and final_state. With `keep` returns the states of all chunks for the backward pass, uint8, else an
// undefined tensor.
at::Tensor forward(recurrence_kernels::Forward params, bool keep, const at::Tensor& like);
void backward(const recurrence_kernels::Backward& params, const at::Tensor& like);

}  // namespace longreach::recurrence_cuda
