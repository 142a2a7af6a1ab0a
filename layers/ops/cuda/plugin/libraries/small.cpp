// Beside the small LibTorch set-up, which has no libtorch_cuda that could be loaded: kernels can be built and
// looked at there.
#include "layers/ops/cuda/plugin/libraries/libraries.h"

namespace longreach::cuda {

std::string libraries() { return "built beside the small LibTorch set-up: without cuDNN and NCCL"; }

}  // namespace longreach::cuda
