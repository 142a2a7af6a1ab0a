// States, decays and the gradient of decays: states.cuh for the three element types, decay.cuh. Where
// registers are named, ptxas takes more left alone, for no further block.
#include "layers/ops/recurrence/cuda/decay.cuh"
#include "layers/ops/recurrence/cuda/states.cuh"

using namespace longreach::recurrence_cuda;
using longreach::cuda::BFloat16;
using longreach::cuda::Float16;

extern "C" __global__ void __launch_bounds__(kThreads)
    recurrence_sums_bf16(const __grid_constant__ SumParams p) {
  chunk_sums<BFloat16>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    recurrence_sums_fp16(const __grid_constant__ SumParams p) {
  chunk_sums<Float16>(p);
}
extern "C" __global__ void __maxnreg__(72) recurrence_sums_fp32(const __grid_constant__ SumParams p) {
  chunk_sums<float>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads) recurrence_scan(const __grid_constant__ ScanParams p) {
  scan(p);
}
extern "C" __global__ void __launch_bounds__(kDecayThreads)
    recurrence_decay_tables(const __grid_constant__ TableParams p) {
  decay_tables(p);
}
extern "C" __global__ void __launch_bounds__(kDecayThreads)
    recurrence_decay_gradient(const __grid_constant__ DecayGradientParams p) {
  decay_gradient(p);
}
