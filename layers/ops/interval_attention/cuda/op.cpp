#include "layers/ops/interval_attention/cuda/op.h"

#include "layers/ops/cuda/run_plan.h"
#include "layers/ops/interval_attention/cuda/plan.h"

namespace longreach::interval {
namespace {

CudaOptions options() {
  return {.multiprocessors = cuda::backend().multiprocessors(),
          .architecture = cuda::backend().architecture()};
}

}  // namespace

void forward_cuda(const Params& params, const at::Tensor& like) {
  cuda::run_plan(like, [&](void* workspace) { return plan_forward(params, workspace, options()); });
}

void backward_cuda(const Params& params, const Gradients& gradients, const at::Tensor& like) {
  cuda::run_plan(like,
                 [&](void* workspace) { return plan_backward(params, gradients, workspace, options()); });
}

}  // namespace longreach::interval
