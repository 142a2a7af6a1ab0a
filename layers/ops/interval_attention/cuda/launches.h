// The kernels of interval attention on named problems, B = 1, H = 16 and T = 8192:
//   attention    causal, key heads as query heads, each built pair of head dims and type: forward and
//                backward
//   sm_90        as attention, head dims 64 and 128, on a device of compute capability 9.0
//   decode       one query, 8192 keys, the same pairs
//   shared       head dims 64, 8 key heads, 16 value heads, explicit intervals: sums of heads, hulls
//   misaligned   head dims 64, rows an element too long: copies
#pragma once
#include "layers/ops/cuda/named_launches.h"

namespace longreach::interval {

void add_launches(cuda::NamedLaunches& all);

}  // namespace longreach::interval
