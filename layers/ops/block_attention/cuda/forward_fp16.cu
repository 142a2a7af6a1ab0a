// Forward kernels, fp16: tiles of 16, 64 and (but for the widest heads) 128 rows of queries and heads; head
// dims 64, 128, and 192 with values of 128. Smaller ones are filled up.
#include "layers/ops/block_attention/cuda/forward.cuh"

namespace longreach::block {

extern "C" __global__ void __launch_bounds__(128)
    block_attention_forward_16_fp16_64_64(const __grid_constant__ CudaForward p) {
  forward<cuda::Float16, 64, 64, 16>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    block_attention_forward_64_fp16_64_64(const __grid_constant__ CudaForward p) {
  forward<cuda::Float16, 64, 64, 64>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    block_attention_forward_128_fp16_64_64(const __grid_constant__ CudaForward p) {
  forward<cuda::Float16, 64, 64, 128>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    block_attention_forward_16_fp16_128_128(const __grid_constant__ CudaForward p) {
  forward<cuda::Float16, 128, 128, 16>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    block_attention_forward_64_fp16_128_128(const __grid_constant__ CudaForward p) {
  forward<cuda::Float16, 128, 128, 64>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    block_attention_forward_128_fp16_128_128(const __grid_constant__ CudaForward p) {
  forward<cuda::Float16, 128, 128, 128>(p);
}
extern "C" __global__ void __launch_bounds__(64)
    block_attention_forward_16_fp16_192_128(const __grid_constant__ CudaForward p) {
  forward<cuda::Float16, 192, 128, 16>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    block_attention_forward_64_fp16_192_128(const __grid_constant__ CudaForward p) {
  forward<cuda::Float16, 192, 128, 64>(p);
}

}  // namespace longreach::block
