// The extra peak memory of a forward and backward pass.
#pragma once
#include <vector>

#include "train/bench/bench_case.h"

namespace longreach::bench {

struct MemoryFigure {
  int64_t tokens = 0;
  int64_t extra_bytes = 0;   // peak resident memory during the pass, less what was resident before it
  int64_t result_bytes = 0;  // o, dq, dk, dv
  int64_t state_bytes = 0;   // what the operator's header documents beside them

  int64_t counted_bytes() const { return result_bytes + state_bytes; }
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(MemoryFigure, tokens, extra_bytes, result_bytes, state_bytes)

// extra_bytes may be this many times counted_bytes, plus kMemoryAllowance.
double allowed_memory_factor(const std::string& dtype);
constexpr int64_t kMemoryAllowance = int64_t{32} << 20;
constexpr double kAllowedGrowth = 1.05;  // exponent of extra_bytes in T

bool memory_within_limit(const MemoryFigure& figure, const std::string& dtype);

// Measures in this process, which must not have freed large blocks before: call it once, in a fresh one. A
// short warm-up brings in code, thread pools and small scratch. Throws Error where /proc does not tell the
// peak.
MemoryFigure memory_figure(const BenchCase& bench_case, const Setting& setting);

}  // namespace longreach::bench
