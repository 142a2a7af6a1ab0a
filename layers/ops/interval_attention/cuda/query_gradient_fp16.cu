// Gradients of queries, fp16: head dims 32, 64, 96, 128, 192, 256, and 192 with values of 128. Smaller ones
// are filled up.
#include "layers/ops/interval_attention/cuda/backward.cuh"

namespace longreach::interval {

extern "C" __global__ void __launch_bounds__(128)
    interval_attention_query_gradient_fp16_32_32(const __grid_constant__ CudaBackward p) {
  query_gradient<cuda::Float16, 32, 32>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    interval_attention_query_gradient_fp16_64_64(const __grid_constant__ CudaBackward p) {
  query_gradient<cuda::Float16, 64, 64>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    interval_attention_query_gradient_fp16_96_96(const __grid_constant__ CudaBackward p) {
  query_gradient<cuda::Float16, 96, 96>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    interval_attention_query_gradient_fp16_128_128(const __grid_constant__ CudaBackward p) {
  query_gradient<cuda::Float16, 128, 128>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    interval_attention_query_gradient_fp16_192_128(const __grid_constant__ CudaBackward p) {
  query_gradient<cuda::Float16, 192, 128>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    interval_attention_query_gradient_fp16_192_192(const __grid_constant__ CudaBackward p) {
  query_gradient<cuda::Float16, 192, 192>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    interval_attention_query_gradient_fp16_256_256(const __grid_constant__ CudaBackward p) {
  query_gradient<cuda::Float16, 256, 256>(p);
}

}  // namespace longreach::interval
