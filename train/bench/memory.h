// The extra peak memory of a forward and backward pass.
#pragma once
#include <functional>
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
// Of a whole layer: at short lengths some of what it keeps fits into memory that the warm-up has left (1.12
// was seen from 2k to 8k for dense attention); what is kept for every pair of blocks shows as 1.5 and more
// from 4k on.
constexpr double kAllowedLayerGrowth = 1.2;

bool memory_within_limit(const MemoryFigure& figure, const std::string& dtype);

// Peak resident memory during `pass` less what was resident before it, in bytes. Throws Error where /proc
// does not tell the peak.
int64_t extra_memory_of(const std::function<void()>& pass);

// Measures in this process, which must not have freed large blocks before: call it once, in a fresh one. A
// short warm-up brings in code, thread pools and small scratch.
MemoryFigure memory_figure(const BenchCase& bench_case, const Setting& setting);

}  // namespace longreach::bench
