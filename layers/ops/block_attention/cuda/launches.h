// The kernels of block attention on a named problem, `blocks`: B = 1, H = 16, T = 8192, 16 listed key blocks
// a row, of 64 keys for rows of one query (all heads on one key head) and of 64 queries, of 32 keys for rows
// of 128; causal, forward with statistics, and backward.
#pragma once
#include "layers/ops/cuda/named_launches.h"

namespace longreach::block {

void add_launches(cuda::NamedLaunches& all);

}  // namespace longreach::block
