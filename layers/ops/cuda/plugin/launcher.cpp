// liblongreach_cuda.so: gives launch plans to a device. Kernels are found by name in the images that were
// built with the plug-in; the runtime picks the cubin of the device or compiles the PTX beside it.
#include <c10/cuda/CUDAStream.h>
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <map>
#include <mutex>

#include "core/promise.h"
#include "layers/ops/cuda/backend.h"
#include "layers/ops/cuda/plugin/images.h"
#include "layers/ops/cuda/plugin/libraries/libraries.h"
#include "layers/ops/cuda/plugin/tensor_map.h"

namespace longreach::cuda {
namespace {

// A library reads its image when a kernel of it is first wanted.
class Kernels {
 public:
  Kernels() {
    for (const Image& image : images()) {
      cudaLibrary_t library{};
      const cudaError_t error =
          cudaLibraryLoadData(&library, image.data, nullptr, nullptr, 0, nullptr, nullptr, 0);
      if (error ==
          cudaErrorNoKernelImageForDevice) {  // X_sm90a.cu elsewhere: plans do not ask for its kernels
        cudaGetLastError();
        continue;
      }
      check_cuda(error, image.name);
      libraries_.push_back(library);
    }
  }

  cudaKernel_t find(const std::string& name) {
    const std::lock_guard lock(mutex_);
    const auto known = kernels_.find(name);
    if (known != kernels_.end()) return known->second;
    for (cudaLibrary_t library : libraries_) {
      cudaKernel_t kernel{};
      if (cudaLibraryGetKernel(&kernel, library, name.c_str()) == cudaSuccess) return kernels_[name] = kernel;
      cudaGetLastError();  // not in this one
    }
    throw BrokenPromise(bug_report(text("CUDA kernel ", name, " is not among those built for this device")));
  }

 private:
  std::mutex mutex_;
  std::vector<cudaLibrary_t> libraries_;
  std::map<std::string, cudaKernel_t> kernels_;
};

class Launcher final : public Backend {
 public:
  void run(const std::vector<Launch>& launches) override {
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream().stream();
    for (const Launch& launch : launches) start(launch, stream);
  }

  int multiprocessors() override { return attribute(cudaDevAttrMultiProcessorCount, "multiprocessors"); }

  int architecture() override {
    return 10 * attribute(cudaDevAttrComputeCapabilityMajor, "compute capability") +
           attribute(cudaDevAttrComputeCapabilityMinor, "compute capability");
  }

 private:
  static int attribute(cudaDeviceAttr which, const char* what) {
    int device = 0, value = 0;
    check_cuda(cudaGetDevice(&device), "cudaGetDevice");
    check_cuda(cudaDeviceGetAttribute(&value, which, device), what);
    return value;
  }

  void start(const Launch& launch, cudaStream_t stream) {
    const void* kernel = kernels_.find(launch.kernel);
    constexpr uint32_t kWithoutAsking = 48 * 1024;
    if (launch.shared_bytes > kWithoutAsking)
      check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(launch.shared_bytes)),
                 launch.kernel);
    std::vector<std::byte> parameters = launch.parameters;
    for (const TensorMapArgument& argument : launch.tensor_maps)
      encode_tensor_map(argument.map, parameters.data() + argument.offset);
    cudaLaunchAttribute cluster{};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {launch.cluster, 1, 1};
    cudaLaunchConfig_t config{};
    config.gridDim = {launch.grid.x, launch.grid.y, launch.grid.z};
    config.blockDim = {launch.block.x, launch.block.y, launch.block.z};
    config.dynamicSmemBytes = launch.shared_bytes;
    config.stream = stream;
    config.attrs = &cluster;
    config.numAttrs = launch.cluster > 1 ? 1 : 0;
    void* arguments[] = {parameters.data()};
    check_cuda(cudaLaunchKernelExC(&config, kernel, arguments), launch.kernel);
  }

  Kernels kernels_;
};

}  // namespace
}  // namespace longreach::cuda

extern "C" __attribute__((visibility("default"))) longreach::cuda::Backend* longreach_make_cuda_backend() {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  longreach::check<longreach::UserError>(
      error == cudaSuccess && devices > 0,
      "no CUDA device: ", error == cudaSuccess ? "the driver shows none" : cudaGetErrorString(error));
  return new longreach::cuda::Launcher;
}

// Asks no driver: machines without one can print the table.
extern "C" __attribute__((visibility("default"))) const char* longreach_cuda_static_table() {
  return longreach::cuda::static_table_text();
}

extern "C" __attribute__((visibility("default"))) const char* longreach_cuda_libraries() {
  static const std::string line = longreach::cuda::libraries();
  return line.c_str();
}
