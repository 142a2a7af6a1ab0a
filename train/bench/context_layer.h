// One attention layer whose row several ranks share, against one rank that has all of it.
#pragma once
#include <cstdint>
#include <string>

#include "distributed/communicator.h"
#include "train/bench/setting.h"

namespace longreach::bench {

struct ContextSetting {
  Setting layer;  // forward and backward; threads: of each rank
  int ranks = 2;
  std::string balance = "ptrr";  // parallel.context_parallel_load_balancer
  bool memory = false;           // one pass of all ranks for its memory, nothing is timed
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ContextSetting, layer, ranks, balance, memory)

struct ContextRow {
  ContextSetting setting;
  double one_seconds = 0, seconds = 0;  // wall time of both passes, of the slowest rank: medians
  double ratio = 0;                     // one rank's time over that of all: median over rounds
  double waited = 0;                    // share of its passes that a rank waits in exchanges: mean over ranks
  int64_t bytes = 0;                    // that leave the rank that sends most
  double imbalance = 1;                 // predicted, by the layer's own count of operations
  int64_t extra_bytes = 0;              // memory: of the rank that takes most, as in MemoryFigure
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ContextRow, setting, one_seconds, seconds, ratio, waited, bytes, imbalance,
                                   extra_bytes)

// On ranks of this machine that are started for it (`longreach launch`). Times are alternated: in each round
// the first rank alone, while the others wait, and all together. Throws UserError with the reason when they
// end without a row.
ContextRow measure_in_ranks(const ContextSetting& setting);

// What such a rank does, given the setting in JSON: the hidden option `longreach bench --context-worker`.
int context_worker_main(const std::string& setting);

}  // namespace longreach::bench
