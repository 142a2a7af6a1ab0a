// Every kernel once, as its own launch plan starts it on a named problem: threads and shared memory a block for the
// static report, arithmetic and least traffic for its estimates. The pointers in the launches lead nowhere.
#pragma once
#include <string>
#include <vector>

#include "layers/ops/cuda/launch.h"
#include "layers/ops/cuda/occupancy.h"

namespace longreach::cuda {

// The problems, B = 1, H = 16 and T = 8192 (a kernel that several of them start belongs to the first):
//   attention    causal, key heads as query heads, each built pair of head dims and type: forward and backward
//   sm_90        as attention, head dims 64 and 128, on a device of compute capability 9.0
//   decode       one query, 8192 keys, the same pairs
//   shared       head dims 64, 8 key heads, 16 value heads, explicit intervals: sums of heads, hulls
//   blocks       16 listed key blocks a row: of 64 keys for rows of one query (all heads on one key head) and of 64
//                queries, of 32 keys for rows of 128; causal, forward with statistics, and backward
//   selection    NSA's choice, one list and key head: windows of 32 in strides of 16, 16 of the blocks of 64; pools of 64
//   misaligned   head dims 64, rows an element too long: copies
//   recurrence   Dk = Dv = 128, a decay per token, states kept: forward, backward and one step
//   rows         8192 rows of 4096 (logits: 32768; rotary: 16 heads of 128): the kernels of layers/ops/rows/cuda
struct NamedLaunch {
  Launch launch;
  std::string problem;
  Work work;
};

std::vector<NamedLaunch> named_launches();

}  // namespace longreach::cuda
