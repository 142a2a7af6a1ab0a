// Gradients of keys and values, fp16: tiles of 32 and 64 keys; head dims 64, 128, and 192 with values of 128.
// Smaller ones are filled up. Two blocks a multiprocessor: left alone, ptxas aims at three for some and
// spills.
#include "layers/ops/block_attention/cuda/backward.cuh"

namespace longreach::block {

extern "C" __global__ void __launch_bounds__(128, 2)
    block_attention_key_gradient_32_fp16_64_64(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float16, 64, 64, 32>(p);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    block_attention_key_gradient_64_fp16_64_64(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float16, 64, 64, 64>(p);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    block_attention_key_gradient_32_fp16_128_128(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float16, 128, 128, 32>(p);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    block_attention_key_gradient_64_fp16_128_128(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float16, 128, 128, 64>(p);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    block_attention_key_gradient_32_fp16_192_128(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float16, 192, 128, 32>(p);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    block_attention_key_gradient_64_fp16_192_128(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float16, 192, 128, 64>(p);
}

}  // namespace longreach::block
