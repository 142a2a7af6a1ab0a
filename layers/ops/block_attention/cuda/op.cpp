#include "layers/ops/block_attention/cuda/op.h"

#include "layers/ops/block_attention/cuda/plan.h"
#include "layers/ops/cuda/run_plan.h"

namespace longreach::block {

void forward_cuda(const Params& params, const at::Tensor& like) {
  cuda::run_plan(like, [&](void* workspace) { return plan_forward(params, workspace); });
}

void backward_cuda(const Params& params, const Gradients& gradients, const at::Tensor& like) {
  cuda::run_plan(like, [&](void* workspace) { return plan_backward(params, gradients, workspace); });
}

}  // namespace longreach::block
