// The kernels of merge on a named problem, `merge`: T = 8192, H = 16, sixteen parts of 128 elements a row,
// NSA's blocks of a size that block attention is not built for.
#pragma once
#include "layers/ops/cuda/named_launches.h"

namespace longreach::merge_kernels {

void add_launches(cuda::NamedLaunches& all);

}  // namespace longreach::merge_kernels
