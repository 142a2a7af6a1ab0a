// Beside the small LibTorch set-up, which has no libtorch_cuda that could be loaded: kernels can be built and
// looked at there.
#include "core/error.h"
#include "distributed/nccl.h"
#include "layers/ops/cuda/plugin/libraries/libraries.h"

namespace longreach::cuda {

std::string libraries() { return "built beside the small LibTorch set-up: without cuDNN and NCCL"; }

}  // namespace longreach::cuda

extern "C" __attribute__((visibility("default"))) longreach::Communicator* longreach_make_nccl_communicator(
    const std::shared_ptr<longreach::Rendezvous>&, const longreach::Group&, const longreach::CommConfig&) {
  throw longreach::UserError(longreach::text("CUDA: ", longreach::cuda::libraries()));
}
