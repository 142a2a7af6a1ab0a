// The project's speed goals, and how this machine stands to them: `longreach bench targets`.
#pragma once
#include <iosfwd>

#include "train/bench/conditions.h"
#include "train/bench/worker.h"

namespace longreach::bench {

// A goal for peer / ours at one length, on a CPU with AVX-512-BF16 and without AMX. Elsewhere float32 must be
// no slower than the peer, and for bfloat16 (whose peer may run on AMX) nothing is asked. Goals against our
// own dense kernel stand everywhere.
struct Target {
  std::string name, dtype, pass;
  int64_t tokens;
  double ratio;
  std::string peer = "sdpa";
};
const std::vector<Target>& targets();

// What is asked of `target` on this machine; 0: nothing.
double required_ratio(const Target& target, const Machine& machine);

// Every target at every thread count, and lightning at the lengths over which its cost a token must be flat.
std::vector<Setting> target_settings(const std::vector<int>& thread_counts, int rounds);

// One line a goal: measured, asked, met or not met.
void print_targets(std::ostream& out, const Machine& machine, const std::vector<Row>& rows);

// (largest - smallest) / smallest cost a token.head over the rows of lightning without a peer; at most
// kFlatness.
double spread_of_cost(const std::vector<Row>& rows);
constexpr double kFlatness = 0.10;

}  // namespace longreach::bench
