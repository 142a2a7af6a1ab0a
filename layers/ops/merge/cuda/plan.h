// Launch plans of the join of partial attentions on CUDA: from shapes and device pointers to kernels, grids
// and parameters. Plain functions without torch or CUDA, used as cuda::Plan says. Lists of parts are
// read here; what they point to is device memory.
#pragma once
#include "layers/ops/cuda/launch.h"
#include "layers/ops/merge/kernels.h"

namespace longreach::merge_kernels {

// float32, bfloat16 or float16 (DtypeError); any number of parts and any size of a row that a 32-bit number
// holds (ShapeError).
cuda::Plan plan_forward(const Merge& params, void* workspace);
cuda::Plan plan_backward(const MergeBackward& params, void* workspace);

}  // namespace longreach::merge_kernels
