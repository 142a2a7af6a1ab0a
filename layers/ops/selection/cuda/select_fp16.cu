// select_blocks, fp16: head dims 64 and 128. Smaller ones are filled up. Blocks a multiprocessor are asked
// for where ptxas would hold registers back for more of them, and spill.
#include "layers/ops/selection/cuda/select.cuh"

namespace longreach::selection {

extern "C" __global__ void __launch_bounds__(kSelectThreads, 4)
    selection_select_fp16_64(const __grid_constant__ CudaSelect p) {
  select<cuda::Float16, 64>(p);
}
extern "C" __global__ void __launch_bounds__(kSelectThreads, 3)
    selection_select_fp16_128(const __grid_constant__ CudaSelect p) {
  select<cuda::Float16, 128>(p);
}

}  // namespace longreach::selection
