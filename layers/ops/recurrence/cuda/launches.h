// The kernels of the recurrence on a named problem, `recurrence`: H = 16, T = 8192, Dk = Dv = 128, a decay a
// token, states kept: forward, backward and one step.
#pragma once
#include "layers/ops/cuda/named_launches.h"

namespace longreach::recurrence_cuda {

void add_launches(cuda::NamedLaunches& all);

}  // namespace longreach::recurrence_cuda
