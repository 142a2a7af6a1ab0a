// Reads /proc, and runs the multiply-add loops of train/bench.
#include "train/machine.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "core/error.h"
#include "layers/ops/parallel.h"
#include "train/bench/peak.h"

namespace longreach {
namespace {

// The value after "key:" in a file of such lines; empty when absent.
std::string value_of(const char* path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const size_t colon = line.find(':'), start = line.find_first_not_of(" \t", colon + 1);
    if (colon != std::string::npos && start != std::string::npos) return line.substr(start);
  }
  return {};
}

}  // namespace

std::string cpu_name() {
  const std::string name = value_of("/proc/cpuinfo", "model name");
  if (!name.empty()) return one_line(name, 100);
  struct utsname system {};
  return ::uname(&system) == 0 ? std::string(system.machine) : "unknown";
}

int64_t usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return std::max<int64_t>(1, ::sysconf(_SC_NPROCESSORS_ONLN));
}

int64_t total_memory_bytes() {
  const int64_t machine = static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGE_SIZE);
  std::ifstream limit("/sys/fs/cgroup/memory.max");
  int64_t container = 0;
  return limit >> container && container > 0 ? std::min(machine, container) : machine;
}

int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * ::sysconf(_SC_PAGE_SIZE);
}

int64_t peak_resident_bytes() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return std::max(static_cast<int64_t>(usage.ru_maxrss) * 1024, resident_bytes());
}

double measured_peak(PeakDtype dtype) {
  static const bench::Peak one_thread = bench::measure_peak();
  const auto threads = static_cast<double>(std::min<int64_t>(num_threads(), usable_cores()));
  return threads * (dtype == PeakDtype::kFloat32 ? one_thread.float32 : one_thread.bfloat16);
}

double PeakShare::of(double rate) {
  if (peak_ <= 0) return -1;
  peak_ = std::max(peak_, rate);
  return rate / peak_;
}

}  // namespace longreach
