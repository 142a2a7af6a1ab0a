// Reads /proc: what the CPU is, and how busy.
#include "train/bench/machine.h"

#include <ATen/Version.h>
#include <sched.h>
#include <torch/headeronly/version.h>

#include <fstream>
#include <set>
#include <sstream>

#include "core/error.h"

namespace longreach::bench {
namespace {

std::string cpuinfo(std::string_view key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (line.starts_with(key) && colon != std::string::npos && colon + 2 <= line.size())
      return line.substr(colon + 2);
  }
  return "";
}

}  // namespace

std::string Machine::instruction_sets() const {
  std::vector<std::string> names;
  if (avx2) names.emplace_back("avx2");
  if (avx512) names.emplace_back("avx512");
  if (avx512_bf16) names.emplace_back("avx512_bf16");
  if (amx) names.emplace_back("amx");
  return names.empty() ? "baseline" : join(names, " ");
}

Machine this_machine() {
  Machine machine;
  const std::string name = cpuinfo("model name");
  machine.cpu = name.empty() ? "unknown CPU" : one_line(name, 120);
  std::istringstream words(cpuinfo("flags"));
  const std::set<std::string> flags{std::istream_iterator<std::string>(words), {}};
  machine.avx2 = flags.contains("avx2") && flags.contains("fma");
  machine.avx512 = flags.contains("avx512f") && flags.contains("avx512bw") && flags.contains("avx512dq");
  machine.avx512_bf16 = flags.contains("avx512_bf16");
  machine.amx = flags.contains("amx_bf16");
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) machine.cores = CPU_COUNT(&allowed);
  machine.libraries = text("LibTorch ", TORCH_VERSION, " (", at::get_cpu_capability(), ")");
  return machine;
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
