// Gradients of keys and values, fp16: head dims 32, 64, 96, 128, 192, 256, and 192 with values of 128.
// Smaller ones are filled up. Two blocks a multiprocessor: left alone, ptxas aims at three for some and
// spills.
#include "layers/ops/interval_attention/cuda/backward.cuh"

namespace longreach::interval {

extern "C" __global__ void __launch_bounds__(128, 2)
    interval_attention_key_gradient_fp16_32_32(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float16, 32, 32, KeyGradients::kBoth>(p);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    interval_attention_key_gradient_fp16_64_64(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float16, 64, 64, KeyGradients::kBoth>(p);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    interval_attention_key_gradient_fp16_96_96(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float16, 96, 96, KeyGradients::kBoth>(p);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    interval_attention_key_gradient_fp16_128_128(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float16, 128, 128, KeyGradients::kBoth>(p);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    interval_attention_key_gradient_fp16_192_128(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float16, 192, 128, KeyGradients::kBoth>(p);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    interval_attention_key_gradient_k_fp16_192_192(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float16, 192, 192, KeyGradients::kKeys>(p);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    interval_attention_key_gradient_v_fp16_192_192(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float16, 192, 192, KeyGradients::kValues>(p);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    interval_attention_key_gradient_k_fp16_256_256(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float16, 256, 256, KeyGradients::kKeys>(p);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    interval_attention_key_gradient_v_fp16_256_256(const __grid_constant__ CudaBackward p) {
  key_gradient<cuda::Float16, 256, 256, KeyGradients::kValues>(p);
}

}  // namespace longreach::interval
