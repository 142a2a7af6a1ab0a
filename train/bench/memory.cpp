// Peak resident memory from /proc/self: VmHWM, reset through clear_refs where the kernel lets us.
#include "train/bench/memory.h"

#include <malloc.h>

#include <algorithm>
#include <fstream>

#include "core/error.h"
#include "train/bench/contestant.h"

namespace longreach::bench {
namespace {

int64_t status_bytes(std::string_view key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key)) return std::stoll(line.substr(key.size())) * 1024;  // in kB
  }
  throw Error(text("/proc/self/status: no ", key));
}

// Freed blocks go back to the system first: what the pass took from them would not show as growth. In the
// pass those of a MiB and more do so at once, so that none that the allocator keeps for later counts beside
// those that are there. Where the reset is refused the old peak stays and the figure can only come out too
// large.
void reset_peak() {
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5";
}

}  // namespace

double allowed_memory_factor(const std::string& dtype) { return dtype == "bfloat16" ? 1.8 : 1.3; }

bool memory_within_limit(const MemoryFigure& figure, const std::string& dtype) {
  const double allowed = allowed_memory_factor(dtype) * static_cast<double>(figure.counted_bytes()) +
                         static_cast<double>(kMemoryAllowance);
  return static_cast<double>(figure.extra_bytes) <= allowed;
}

int64_t extra_memory_of(const std::function<void()>& pass) {
  reset_peak();
  const int64_t before = status_bytes("VmRSS:");
  pass();
  return std::max<int64_t>(0, status_bytes("VmHWM:") - before);
}

MemoryFigure memory_figure(const BenchCase& bench_case, const Setting& setting) {
  Setting small = setting;
  small.tokens = std::min<int64_t>(256, setting.tokens);
  local_contestant(bench_case, make_problem(small), setting.backward())->result();
  const Problem problem = make_problem(setting);
  const auto contestant = local_contestant(bench_case, problem, setting.backward());
  Result kept;
  MemoryFigure figure{.tokens = setting.tokens};
  figure.extra_bytes = extra_memory_of([&] { kept = contestant->result(); });
  figure.result_bytes = problem.bytes_of_results();
  figure.state_bytes = bench_case.state_bytes(setting);
  return figure;
}

}  // namespace longreach::bench
