// Outputs and gradients of every chunk: the roles of outputs.cuh for the three element types.
#include "layers/ops/recurrence/cuda/outputs.cuh"

using namespace longreach::recurrence_cuda;
using longreach::cuda::BFloat16;
using longreach::cuda::Float16;

extern "C" __global__ void __launch_bounds__(kThreads)
    recurrence_output_bf16(const __grid_constant__ OutputParams p) {
  outputs<BFloat16, Role::kOutput>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    recurrence_grad_value_bf16(const __grid_constant__ OutputParams p) {
  outputs<BFloat16, Role::kGradValue>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    recurrence_grad_query_bf16(const __grid_constant__ OutputParams p) {
  outputs<BFloat16, Role::kGradQuery>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    recurrence_grad_key_bf16(const __grid_constant__ OutputParams p) {
  outputs<BFloat16, Role::kGradKey>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    recurrence_output_fp16(const __grid_constant__ OutputParams p) {
  outputs<Float16, Role::kOutput>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    recurrence_grad_value_fp16(const __grid_constant__ OutputParams p) {
  outputs<Float16, Role::kGradValue>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    recurrence_grad_query_fp16(const __grid_constant__ OutputParams p) {
  outputs<Float16, Role::kGradQuery>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    recurrence_grad_key_fp16(const __grid_constant__ OutputParams p) {
  outputs<Float16, Role::kGradKey>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    recurrence_output_fp32(const __grid_constant__ OutputParams p) {
  outputs<float, Role::kOutput>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    recurrence_grad_value_fp32(const __grid_constant__ OutputParams p) {
  outputs<float, Role::kGradValue>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    recurrence_grad_query_fp32(const __grid_constant__ OutputParams p) {
  outputs<float, Role::kGradQuery>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    recurrence_grad_key_fp32(const __grid_constant__ OutputParams p) {
  outputs<float, Role::kGradKey>(p);
}
