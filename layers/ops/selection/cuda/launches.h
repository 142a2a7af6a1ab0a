// The kernels of selection on a named problem, `selection`: NSA's choice for one group of 16 heads, T = 8192,
// windows of 32 in strides of 16, 16 of the blocks of 64 a token; and pools of 64 tokens.
#pragma once
#include "layers/ops/cuda/named_launches.h"

namespace longreach::selection {

void add_launches(cuda::NamedLaunches& all);

}  // namespace longreach::selection
