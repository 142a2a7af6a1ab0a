#include "train/bench/conditions.h"

#include <ATen/Version.h>
#include <torch/headeronly/version.h>

#include <fstream>

#include "core/error.h"

namespace longreach::bench {

Machine this_machine() {
  return {.cpu = cpu_name(),
          .has = instruction_sets(),
          .cores = usable_cores(),
          .libraries = text("LibTorch ", TORCH_VERSION, " (", at::get_cpu_capability(), ")")};
}

double load_average() {
  double load = 0;
  std::ifstream("/proc/loadavg") >> load;
  return load;
}

std::string busy_warning(double load_before, double load_after, int threads) {
  // The run itself adds up to `threads` to the second figure.
  if (load_before <= 0.5 && load_after <= threads + 0.5) return "";
  return text("warning: load average ", load_before, " before and ", load_after, " after with ", threads,
              " thread(s) of ours: other programs share the machine, wall times are not to be trusted");
}

}  // namespace longreach::bench
