// What a number was measured on, and beside what.
#pragma once
#include <string>

#include "core/machine.h"

namespace longreach::bench {

struct Machine {
  std::string cpu;  // model name
  InstructionSets has;
  int64_t cores = 0;      // that this process may run on
  std::string libraries;  // LibTorch's version and the vector set its kernels chose

  // The kind of machine that the project's speed targets are set for.
  bool targets_apply() const { return has.avx512_bf16 && !has.amx; }
};

Machine this_machine();

// Runnable tasks over the last minute (/proc/loadavg); 0 where the system does not say.
double load_average();

// A line that names the load when other programs seem to be using the machine, else empty.
std::string busy_warning(double load_before, double load_after, int threads);

}  // namespace longreach::bench
