// Interval attention on CUDA tensors: work space, launch plans, the device. The pointers of Params and
// Gradients are those of CUDA tensors; `like` is one of them.
#pragma once
#include <ATen/core/Tensor.h>

#include "layers/ops/interval_attention/kernels.h"

namespace longreach::interval {

void forward_cuda(const Params& params, const at::Tensor& like);
void backward_cuda(const Params& params, const Gradients& gradients, const at::Tensor& like);

}  // namespace longreach::interval
