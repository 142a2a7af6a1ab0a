// Beside the full LibTorch set-up: asks libtorch_cuda, which brings NCCL (c10d::ProcessGroupNCCL) and cuDNN.
// The plug-in links libtorch_cuda alone; what that needs in turn is found when it is loaded.
#include <ATen/detail/CUDAHooksInterface.h>
#include <cuda_runtime_api.h>
#include <torch/csrc/distributed/c10d/NCCLUtils.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "core/error.h"
#include "layers/ops/cuda/plugin/libraries/libraries.h"

namespace longreach::cuda {
namespace {

// 13000 is 13.0, of the runtime and the driver.
std::string cuda_version(int number) { return text(number / 1000, '.', number % 1000 / 10); }

// 91900 is 9.19.0.
std::string cudnn_version(long number) {
  return text(number / 10000, '.', number / 100 % 100, '.', number % 100);
}

}  // namespace

std::string libraries() {
  int runtime = 0, driver = 0;
  cudaRuntimeGetVersion(&runtime);
  cudaDriverGetVersion(&driver);
  const auto collectives = c10d::ProcessGroupNCCL::Options::create();
  return text("CUDA runtime ", cuda_version(runtime), ", cuDNN ",
              cudnn_version(at::detail::getCUDAHooks().versionRuntimeCuDNN()), ", NCCL ",
              c10d::getNcclVersion(), " (", collectives->backend, " collectives, timeout ",
              collectives->timeout.count() / 1000, " s), driver ",
              driver == 0 ? "none" : cuda_version(driver));
}

}  // namespace longreach::cuda
