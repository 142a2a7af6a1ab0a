// Gradients of keys and values, fp32: tiles of 32 keys; head dims 64, 128, and 192 with values of 128.
// Smaller ones are filled up. Two blocks a multiprocessor: left alone, ptxas aims at three for some and
// spills. Where registers are named, it takes more left alone, for no further block.
#include "layers/ops/block_attention/cuda/backward.cuh"

namespace longreach::block {

extern "C" __global__ void __launch_bounds__(128, 2)
    block_attention_key_gradient_32_fp32_64_64(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float32, 64, 64, 32>(p);
}
extern "C" __global__ void __maxnreg__(176)
    block_attention_key_gradient_k_32_fp32_128_128(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float32, 128, 128, 32, KeyGradients::kKeys>(p);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    block_attention_key_gradient_v_32_fp32_128_128(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float32, 128, 128, 32, KeyGradients::kValues>(p);
}
extern "C" __global__ void __maxnreg__(208)
    block_attention_key_gradient_k_32_fp32_192_128(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float32, 192, 128, 32, KeyGradients::kKeys>(p);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    block_attention_key_gradient_v_32_fp32_192_128(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float32, 192, 128, 32, KeyGradients::kValues>(p);
}

}  // namespace longreach::block
