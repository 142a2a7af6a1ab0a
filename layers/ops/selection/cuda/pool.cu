// pool_blocks and its gradient.
#include "layers/ops/selection/cuda/pool.cuh"

namespace longreach::selection {

extern "C" __global__ void __launch_bounds__(kPoolThreads)
    selection_pool_bf16(const __grid_constant__ CudaPool p) {
  pool<cuda::BFloat16>(p);
}
extern "C" __global__ void __launch_bounds__(kPoolThreads)
    selection_pool_fp16(const __grid_constant__ CudaPool p) {
  pool<cuda::Float16>(p);
}
extern "C" __global__ void __launch_bounds__(kPoolThreads)
    selection_pool_fp32(const __grid_constant__ CudaPool p) {
  pool<float>(p);
}
extern "C" __global__ void __launch_bounds__(kPoolThreads)
    selection_pool_gradient_bf16(const __grid_constant__ CudaPool p) {
  pool_gradient<cuda::BFloat16>(p);
}
extern "C" __global__ void __launch_bounds__(kPoolThreads)
    selection_pool_gradient_fp16(const __grid_constant__ CudaPool p) {
  pool_gradient<cuda::Float16>(p);
}
extern "C" __global__ void __launch_bounds__(kPoolThreads)
    selection_pool_gradient_fp32(const __grid_constant__ CudaPool p) {
  pool_gradient<float>(p);
}

}  // namespace longreach::selection
