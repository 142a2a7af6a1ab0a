// Gradients of queries of dense attention for sm_90a: bf16 and fp16, head dims 64 and 128.
#include "layers/ops/interval_attention/cuda/dense_backward.cuh"

namespace longreach::interval {

extern "C" __global__ void __launch_bounds__(kDenseThreads, 1)
    interval_attention_dense_query_gradient_bf16_64(const __grid_constant__ DenseBackward p) {
  dense_query_gradient<cuda::BFloat16, 64>(p);
}
extern "C" __global__ void __launch_bounds__(kDenseThreads, 1)
    interval_attention_dense_query_gradient_bf16_128(const __grid_constant__ DenseBackward p) {
  dense_query_gradient<cuda::BFloat16, 128>(p);
}
extern "C" __global__ void __launch_bounds__(kDenseThreads, 1)
    interval_attention_dense_query_gradient_fp16_64(const __grid_constant__ DenseBackward p) {
  dense_query_gradient<cuda::Float16, 64>(p);
}
extern "C" __global__ void __launch_bounds__(kDenseThreads, 1)
    interval_attention_dense_query_gradient_fp16_128(const __grid_constant__ DenseBackward p) {
  dense_query_gradient<cuda::Float16, 128>(p);
}

}  // namespace longreach::interval
