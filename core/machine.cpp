// Reads /proc and asks the system.
#include "core/machine.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <limits>
#include <set>
#include <sstream>
#include <vector>

#include "core/error.h"

namespace longreach {
namespace {

// The value after "key:" in a file of such lines; empty when absent.
std::string value_of(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const size_t colon = line.find(':'), start = line.find_first_not_of(" \t", colon + 1);
    if (colon != std::string::npos && start != std::string::npos) return line.substr(start);
  }
  return {};
}

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

// The number a file begins with, or the number behind `key` in one of its lines.
int64_t number_in(const std::string& path, const std::string& key, int64_t otherwise) {
  std::ifstream file(path);
  int64_t value = 0;
  if (key.empty()) return file >> value ? value : otherwise;
  for (std::string word; file >> word;)
    if (word == key && file >> value) return value;
  return otherwise;
}

// What the control group at `folder` still allows: page cache that it counts can be given back.
int64_t left_in_group(const std::string& folder, bool second_version) {
  const int64_t limit =
      number_in(folder + (second_version ? "/memory.max" : "/memory.limit_in_bytes"), "", kNoLimit);
  if (limit == kNoLimit) return kNoLimit;
  const int64_t used = number_in(folder + (second_version ? "/memory.current" : "/memory.usage_in_bytes"), "",
                                 0),
                cached = number_in(folder + "/memory.stat",
                                   second_version ? "inactive_file" : "total_inactive_file", 0);
  return std::max<int64_t>(0, limit - used + cached);
}

// The least of the groups that this process is in, up to the root.
int64_t left_in_groups(const std::string& root) {
  int64_t left = kNoLimit;
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "0::/user.slice/x" or "9:memory:/x"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool second_version = controllers.empty();
    if (!second_version && controllers.find("memory") == std::string::npos) continue;
    const std::string top = root + "/sys/fs/cgroup" + (second_version ? "" : "/memory");
    for (std::string path = line.substr(second + 1);; path.resize(path.rfind('/'))) {
      left = std::min(left, left_in_group(top + path, second_version));
      if (path.find('/') == std::string::npos) break;
    }
  }
  return left;
}

// Of the address space that `ulimit -v` allows.
int64_t left_in_address_space() {
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kNoLimit;
  const int64_t pages = number_in("/proc/self/statm", "", 0);
  return std::max<int64_t>(0, static_cast<int64_t>(limit.rlim_cur) - pages * ::sysconf(_SC_PAGE_SIZE));
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

std::string InstructionSets::names() const {
  std::vector<std::string> names;
  if (avx2) names.emplace_back("avx2");
  if (avx512) names.emplace_back("avx512");
  if (avx512_bf16) names.emplace_back("avx512_bf16");
  if (amx) names.emplace_back("amx");
  return names.empty() ? "baseline" : join(names, " ");
}

InstructionSets instruction_sets() {
  std::istringstream words(value_of("/proc/cpuinfo", "flags"));
  const std::set<std::string> flags{std::istream_iterator<std::string>(words), {}};
  return {.avx2 = flags.contains("avx2") && flags.contains("fma"),
          .avx512 = flags.contains("avx512f") && flags.contains("avx512bw") && flags.contains("avx512dq"),
          .avx512_bf16 = flags.contains("avx512_bf16"),
          .amx = flags.contains("amx_bf16")};
}

int64_t total_memory_bytes() {
  const int64_t machine = static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGE_SIZE);
  std::ifstream limit("/sys/fs/cgroup/memory.max");
  int64_t container = 0;
  return limit >> container && container > 0 ? std::min(machine, container) : machine;
}

int64_t available_memory_bytes(const std::string& root) {
  const std::string path = root + "/proc/meminfo";
  const int64_t free = number_in(path, "MemAvailable:", -1), swap = number_in(path, "SwapFree:", 0);
  const int64_t machine = free >= 0 ? (free + swap) * 1024 : total_memory_bytes();
  return std::min({machine, left_in_groups(root), left_in_address_space()});
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

}  // namespace longreach
