// The passes over rows of interval attention, for bf16, fp16 and fp32.
#include "layers/ops/interval_attention/cuda/rows.cuh"

namespace longreach::interval {

extern "C" __global__ void __launch_bounds__(kRowThreads)
    interval_attention_rows_merge_splits_bf16(const __grid_constant__ CudaMerge p) {
  merge_splits<cuda::BFloat16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    interval_attention_rows_merge_splits_fp16(const __grid_constant__ CudaMerge p) {
  merge_splits<cuda::Float16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    interval_attention_rows_merge_splits_fp32(const __grid_constant__ CudaMerge p) {
  merge_splits<cuda::Float32>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    interval_attention_rows_hulls(const __grid_constant__ CudaHulls p) {
  hulls(p);
}

}  // namespace longreach::interval
