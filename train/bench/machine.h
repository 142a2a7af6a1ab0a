// Names the machine a number was measured on.
#pragma once
#include <string>

#include "train/bench/peak.h"

namespace longreach::bench {

struct Machine {
  std::string cpu;  // model name
  bool avx2 = false, avx512 = false, avx512_bf16 = false, amx = false;
  int cores = 0;          // that this process may run on
  std::string libraries;  // LibTorch's version and the vector set its kernels chose

  std::string instruction_sets() const;  // "avx2 avx512 ..."
  // The kind of machine that the project's speed targets are set for.
  bool targets_apply() const { return avx512_bf16 && !amx; }
};

Machine this_machine();

// Runnable tasks over the last minute (/proc/loadavg); 0 where the system does not say.
double load_average();

// A line that names the load when other programs seem to be using the machine, else empty.
std::string busy_warning(double load_before, double load_after, int threads);

}  // namespace longreach::bench
