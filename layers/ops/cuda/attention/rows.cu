// The passes over rows around the kernels of attention, for bf16, fp16 and fp32.
#include "layers/ops/cuda/attention/rows.cuh"

namespace longreach::cuda::attention {

extern "C" __global__ void __launch_bounds__(kRowThreads)
    attention_rows_row_terms_bf16(const __grid_constant__ CudaRowTerms p) {
  row_terms<cuda::BFloat16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    attention_rows_sum_heads_bf16(const __grid_constant__ CudaSumHeads p) {
  sum_heads<cuda::BFloat16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    attention_rows_row_terms_fp16(const __grid_constant__ CudaRowTerms p) {
  row_terms<cuda::Float16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    attention_rows_sum_heads_fp16(const __grid_constant__ CudaSumHeads p) {
  sum_heads<cuda::Float16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    attention_rows_row_terms_fp32(const __grid_constant__ CudaRowTerms p) {
  row_terms<cuda::Float32>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    attention_rows_sum_heads_fp32(const __grid_constant__ CudaSumHeads p) {
  sum_heads<cuda::Float32>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    attention_rows_align_16(const __grid_constant__ CudaAlign p) {
  align_rows<uint16_t>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    attention_rows_align_32(const __grid_constant__ CudaAlign p) {
  align_rows<uint32_t>(p);
}

}  // namespace longreach::cuda::attention
