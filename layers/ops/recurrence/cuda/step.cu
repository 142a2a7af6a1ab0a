// The decoding step of the recurrence for the three element types.
#include "layers/ops/recurrence/cuda/step.cuh"

using namespace longreach::recurrence_cuda;
using longreach::cuda::BFloat16;
using longreach::cuda::Float16;

extern "C" __global__ void __launch_bounds__(kThreads)
    recurrence_step_bf16(const __grid_constant__ StepParams p) {
  step<BFloat16>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    recurrence_step_fp16(const __grid_constant__ StepParams p) {
  step<Float16>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    recurrence_step_fp32(const __grid_constant__ StepParams p) {
  step<float>(p);
}
