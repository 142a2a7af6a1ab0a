// The kernels over rows on a named problem, `rows`: 8192 rows of 4096 (logits: 32768; rotary: 16 heads of
// 128).
#pragma once
#include "layers/ops/cuda/named_launches.h"

namespace longreach::cuda {

void add_row_launches(NamedLaunches& all);

}  // namespace longreach::cuda
