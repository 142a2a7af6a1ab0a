// The mutation gate: faults as edits of the PTX that ships, each of which the tests must notice. An edit is a
// regular expression over one line of one kernel, so no compiler runs; an edit that finds nothing to change
// is a failure of the gate, and so is one that a test does not notice.
//
//   const Mutant faults[] = {{"copies are not waited for", kernel, "cp\\.async\\.wait_group.*", "", 0,
//   "unfinished cp.async"}}; expect_all_caught(faults, 1e-2, [](const Kernels& kernels) { ...; return
//   Outcome{...}; });
#pragma once
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tests/ptx/interpreter/interpreter.h"

namespace longreach::ptx {

inline constexpr int kEverywhere = -1;

// How a fault shows that makes no error in the interpreter.
inline constexpr const char* kNumbers = "numbers";        // the result is off by more than the test allows
inline constexpr const char* kWavefronts = "wavefronts";  // right, with bank conflicts above the limit

struct Mutant {
  const char* name;
  const char* kernel;
  const char* pattern;      // ECMAScript, searched for in each line of the kernel
  const char* replacement;  // as std::regex_replace takes it; "" removes what was found
  int which;                // of the lines that match, from 0; or kEverywhere
  const char* caught_by;    // words of an error, kNumbers or kWavefronts
};

// The kernels of one test, one of them perhaps faulty.
class Kernels {
 public:
  // file_of(kernel): NAME of the NAME.ptx that the kernel is in.
  using FileOf = std::function<std::string(const std::string& kernel)>;
  explicit Kernels(FileOf file_of) : file_of_(std::move(file_of)) {}

  const Module& module_of(const std::string& kernel) const;
  // A copy with the faulty kernel. Throws DataError where the pattern is not found or nothing changes.
  Kernels with(const Mutant& mutant) const;

 private:
  FileOf file_of_;
  mutable std::map<std::string, Module> modules_;  // by kernel
};

// What a run of the test's launches showed.
struct Outcome {
  std::vector<std::string> errors;
  double error = 0;                    // largest relative RMS error of the results; NaN counts as wrong
  double wavefronts = 1, sectors = 1;  // largest ratios of found to ideal

  void add(const Report& report);
};

// One fault: empty when it is caught as the mutant says, else what happened instead.
std::string judge(const Mutant& mutant, const Outcome& outcome, double limit);

// The unchanged kernels pass: no errors, numbers within `limit`, wavefronts within 1.05. Each mutant is
// caught as it says.
inline void expect_all_caught(std::span<const Mutant> mutants, const Kernels& kernels, double limit,
                              const std::function<Outcome(const Kernels&)>& test) {
  const Outcome right = test(kernels);
  ASSERT_TRUE(right.errors.empty()) << right.errors[0];
  ASSERT_LE(right.error, limit);
  ASSERT_LE(right.wavefronts, 1.05);
  for (const Mutant& mutant : mutants) {
    SCOPED_TRACE(mutant.name);
    Outcome outcome;
    ASSERT_NO_THROW(outcome = test(kernels.with(mutant)));
    EXPECT_EQ(judge(mutant, outcome, limit), "");
  }
}

// RMS of found - exact over RMS of exact; of bf16 values or floats.
double relative_rms(std::span<const float> found, std::span<const double> exact);

}  // namespace longreach::ptx
