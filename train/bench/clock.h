// The two clocks of the benchmarks: process CPU time, which other programs on the machine do not lengthen
// much, and wall time, the only fair one once several threads share the work.
#pragma once
#include <ctime>

namespace longreach::bench {

inline double seconds_of(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Seconds; differences alone mean something.
struct Timing {
  double wall = 0, cpu = 0;
};

inline Timing now() { return {seconds_of(CLOCK_MONOTONIC), seconds_of(CLOCK_PROCESS_CPUTIME_ID)}; }

inline Timing since(const Timing& start) {
  const Timing end = now();
  return {end.wall - start.wall, end.cpu - start.cpu};
}

}  // namespace longreach::bench
