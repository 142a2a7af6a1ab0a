// Decoding kernels, bf16: head dims 32, 64, 96, 128, 192, 256, and 192 with values of 128. Smaller ones are
// filled up.
#include "layers/ops/interval_attention/cuda/forward.cuh"

namespace longreach::interval {

extern "C" __global__ void __launch_bounds__(128)
    interval_attention_decode_bf16_32_32(const __grid_constant__ CudaForward p) {
  forward<cuda::BFloat16, 32, 32, true>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    interval_attention_decode_bf16_64_64(const __grid_constant__ CudaForward p) {
  forward<cuda::BFloat16, 64, 64, true>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    interval_attention_decode_bf16_96_96(const __grid_constant__ CudaForward p) {
  forward<cuda::BFloat16, 96, 96, true>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    interval_attention_decode_bf16_128_128(const __grid_constant__ CudaForward p) {
  forward<cuda::BFloat16, 128, 128, true>(p);
}
extern "C" __global__ void __launch_bounds__(64)
    interval_attention_decode_bf16_192_128(const __grid_constant__ CudaForward p) {
  forward<cuda::BFloat16, 192, 128, true>(p);
}
extern "C" __global__ void __launch_bounds__(64)
    interval_attention_decode_bf16_192_192(const __grid_constant__ CudaForward p) {
  forward<cuda::BFloat16, 192, 192, true>(p);
}
extern "C" __global__ void __launch_bounds__(64)
    interval_attention_decode_bf16_256_256(const __grid_constant__ CudaForward p) {
  forward<cuda::BFloat16, 256, 256, true>(p);
}

}  // namespace longreach::interval
