// Gradients of keys and values, fp32: head dims 64, 128, 256 (three TF32 products). Smaller ones are filled
// up. Where registers are named, ptxas takes more left alone, for no further block.
#include "layers/ops/interval_attention/cuda/backward.cuh"

namespace longreach::interval {

extern "C" __global__ void __launch_bounds__(128)
    interval_attention_key_gradient_fp32_64_64(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float32, 64, 64, KeyGradients::kBoth>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    interval_attention_key_gradient_k_fp32_128_128(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float32, 128, 128, KeyGradients::kKeys>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    interval_attention_key_gradient_v_fp32_128_128(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float32, 128, 128, KeyGradients::kValues>(p);
}
extern "C" __global__ void __maxnreg__(248)
    interval_attention_key_gradient_k_fp32_256_256(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float32, 256, 256, KeyGradients::kKeys>(p);
}
extern "C" __global__ void __launch_bounds__(64)
    interval_attention_key_gradient_v_fp32_256_256(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float32, 256, 256, KeyGradients::kValues>(p);
}

}  // namespace longreach::interval
