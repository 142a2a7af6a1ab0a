// Decoding kernels, fp32: head dims 64, 128, 256 (products by three TF32 products). Smaller ones are filled
// up.
#include "layers/ops/interval_attention/cuda/forward.cuh"

namespace longreach::interval {

extern "C" __global__ void __launch_bounds__(128)
    interval_attention_decode_fp32_64_64(const __grid_constant__ CudaForward p) {
  forward<cuda::Float32, 64, 64, true>(p);
}
extern "C" __global__ void __launch_bounds__(64)
    interval_attention_decode_fp32_128_128(const __grid_constant__ CudaForward p) {
  forward<cuda::Float32, 128, 128, true>(p);
}
extern "C" __global__ void __launch_bounds__(64)
    interval_attention_decode_fp32_256_256(const __grid_constant__ CudaForward p) {
  forward<cuda::Float32, 256, 256, true>(p);
}

}  // namespace longreach::interval
