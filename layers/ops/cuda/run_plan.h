// Runs an operator's launch plan on the device. A plan is made twice: without memory, to learn how much it
// needs, and with it.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>

#include "layers/ops/cuda/backend.h"
#include "layers/ops/cuda/device_memory.h"

namespace longreach::cuda {

// make(workspace): a plan with launches, workspace_bytes and upload, what the work space begins with. `like`
// is one of the operator's tensors.
template <class MakePlan>
void run_plan(const at::Tensor& like, const MakePlan& make) {
  const c10::DeviceGuard guard(like.device());
  const auto sizes = make(nullptr);
  const at::Tensor workspace = device_bytes(sizes.workspace_bytes, like);
  upload(sizes.upload, workspace);
  backend().run(make(workspace.mutable_data_ptr()).launches);
}

}  // namespace longreach::cuda
