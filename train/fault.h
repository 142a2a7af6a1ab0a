// Faults on purpose, `[fault] inject`: how tests, and whoever prepares a long run, see what a run does when a
// rank is lost.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "checkpoints/write_point.h"
#include "core/fields.h"
#include "distributed/environment.h"

namespace longreach {

enum class FaultKind { kKill, kStop, kExit, kTerm, kNan, kSlow, kDiskFull };

struct Fault {
  FaultKind kind;
  int64_t rank, step;        // step: from 1, before it is computed
  int64_t milliseconds = 0;  // kSlow
  // kKill, from 1: not before the step, but at this point of the save after it. 0: before the step.
  int64_t write = 0;
};

struct FaultConfig {
  std::string inject;
  void fields(FieldVisitor& visit);
};

// "kill:rank=1:step=7,slow:rank=0:step=1:ms=50"; none of an empty string. Throws ConfigError that says what
// is allowed.
std::vector<Fault> parse_faults(const std::string& written);

// Throws ConfigError when a fault names a rank that is not there.
void expect_ranks_of(const FaultConfig& config, int world);

// Those of one rank. None in an attempt that is not the launcher's first: a run that was started again goes
// on.
class Faults {
 public:
  Faults(const FaultConfig& config, const Environment& environment);

  bool none() const { return left_.empty(); }
  // Before a step is computed. Each fault strikes once, a slow rank at every step from its own on. Returns
  // whether the losses of this step's micro-batches become NaN.
  bool strike(int64_t step);
  // For the save after `step`; null where nothing strikes there.
  WritePoint write_point(int64_t step) const;

 private:
  std::vector<Fault> left_, in_saves_;
};

}  // namespace longreach
