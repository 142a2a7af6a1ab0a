// Lists of chunks go to the device, then the plan's kernels run.
#include "layers/ops/recurrence/cuda/op.h"

#include <c10/core/DeviceGuard.h>

#include "layers/ops/cuda/backend.h"
#include "layers/ops/cuda/device_memory.h"
#include "layers/ops/recurrence/cuda/plan.h"

namespace longreach::recurrence_cuda {
namespace {

template <class MakePlan>
void run(const Shape& shape, size_t workspace_bytes, const at::Tensor& like, const MakePlan& make) {
  const std::vector<std::byte> host_lists = make_lists(shape);
  const at::Tensor lists = cuda::device_bytes(host_lists.size(), like),
                   workspace = cuda::device_bytes(workspace_bytes, like);
  cuda::upload(host_lists, lists);
  cuda::backend().run(make(DeviceMemory{lists.const_data_ptr(), workspace.mutable_data_ptr()}));
}

}  // namespace

at::Tensor forward(Forward params, bool keep, const at::Tensor& like) {
  const c10::DeviceGuard guard(like.device());
  at::Tensor checkpoints;
  if (keep) {
    checkpoints = cuda::device_bytes(checkpoint_bytes(params.shape), like);
    params.checkpoints = static_cast<float*>(checkpoints.mutable_data_ptr());
  }
  run(params.shape, forward_workspace_bytes(params), like,
      [&](const DeviceMemory& memory) { return plan_forward(params, memory); });
  return checkpoints;
}

void backward(const Backward& params, const at::Tensor& like) {
  const c10::DeviceGuard guard(like.device());
  run(params.shape, backward_workspace_bytes(params), like,
      [&](const DeviceMemory& memory) { return plan_backward(params, memory); });
}

}  // namespace longreach::recurrence_cuda
