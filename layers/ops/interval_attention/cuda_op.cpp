// A plan is made twice: without memory, to learn how much it needs, and with it.
#include "layers/ops/interval_attention/cuda_op.h"

#include <c10/core/DeviceGuard.h>

#include "layers/ops/cuda/backend.h"
#include "layers/ops/cuda/device_memory.h"
#include "layers/ops/interval_attention/cuda_plan.h"

namespace longreach::interval {
namespace {

template <class MakePlan>
void run(const at::Tensor& like, const MakePlan& make) {
  const c10::DeviceGuard guard(like.device());
  const CudaPlan sizes = make(nullptr);
  const at::Tensor workspace = cuda::device_bytes(sizes.workspace_bytes, like);
  cuda::upload(sizes.upload, workspace);
  cuda::backend().run(make(workspace.mutable_data_ptr()).launches);
}

CudaOptions options() {
  return {.multiprocessors = cuda::backend().multiprocessors(),
          .architecture = cuda::backend().architecture()};
}

}  // namespace

void forward_cuda(const Params& params, const at::Tensor& like) {
  run(like, [&](void* workspace) { return plan_forward(params, workspace, options()); });
}

void backward_cuda(const Params& params, const Gradients& gradients, const at::Tensor& like) {
  run(like, [&](void* workspace) { return plan_backward(params, gradients, workspace, options()); });
}

}  // namespace longreach::interval
