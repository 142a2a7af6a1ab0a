// Measurements happen in fresh processes of this program, one a thread count (or one a memory figure):
// torch's pools keep the size they had at the first parallel work, and a process that has freed memory hides
// the next peak.
#pragma once
#include <functional>

#include "layers/ops/cpu/peak.h"
#include "train/bench/bench_case.h"
#include "train/bench/memory.h"

namespace longreach::bench {

struct Report {
  std::vector<Row> rows;
  Peak peak;  // of one thread, as the last worker measured it
};

// Starts a worker for each thread count among `settings`, in their order; `on_row` sees each row as it comes.
// A worker that dies leaves refused rows that say so.
Report measure_in_workers(const std::vector<Setting>& settings,
                          const std::function<void(const Row&)>& on_row);

// One figure in a process of its own. Throws Error when the process dies.
MemoryFigure memory_in_worker(const Setting& setting);

// The other end: reads one job from standard input, writes JSON lines to standard output. Called for the
// hidden option `longreach bench --worker`.
int worker_main();

}  // namespace longreach::bench
