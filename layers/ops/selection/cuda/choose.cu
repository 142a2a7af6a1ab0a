// choose_blocks: lists from scores in global memory.
#include "layers/ops/selection/cuda/choose.cuh"

namespace longreach::selection {

extern "C" __global__ void __launch_bounds__(kChooseWarps * 32)
    selection_choose(const __grid_constant__ CudaChoose p) {
  choose(p);
}

}  // namespace longreach::selection
