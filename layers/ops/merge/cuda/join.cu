// The join of partial attentions and its gradient, for their element types.
#include "layers/ops/merge/cuda/join.cuh"

using namespace longreach;
using namespace longreach::merge_kernels;

extern "C" __global__ void __launch_bounds__(kJoinThreads)
    merge_join_bf16(const __grid_constant__ CudaMerge p) {
  join<cuda::BFloat16>(p);
}
extern "C" __global__ void __launch_bounds__(kJoinThreads)
    merge_join_fp16(const __grid_constant__ CudaMerge p) {
  join<cuda::Float16>(p);
}
extern "C" __global__ void __launch_bounds__(kJoinThreads)
    merge_join_fp32(const __grid_constant__ CudaMerge p) {
  join<float>(p);
}
extern "C" __global__ void __launch_bounds__(kJoinThreads)
    merge_join_gradient_bf16(const __grid_constant__ CudaMergeGradient p) {
  join_gradient<cuda::BFloat16>(p);
}
extern "C" __global__ void __launch_bounds__(kJoinThreads)
    merge_join_gradient_fp16(const __grid_constant__ CudaMergeGradient p) {
  join_gradient<cuda::Float16>(p);
}
extern "C" __global__ void __launch_bounds__(kJoinThreads)
    merge_join_gradient_fp32(const __grid_constant__ CudaMergeGradient p) {
  join_gradient<float>(p);
}
