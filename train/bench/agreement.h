// Results first, speed after: what must hold before a number is given.
#pragma once
#include "train/bench/contestant.h"

namespace longreach::bench {

// Compares o and dq over three stretches of rows (first, middle, last), and dk and dv over the last one, with
// `reference` in float64. Limit on RMS(error) / RMS(reference): 5e-6 in float32 and 1e-2 in bfloat16, or
// twice the reference's own error in that dtype, plus an absolute 1e-6 times the largest input. Returns the
// largest relative error; throws Refusal that names `who`, the tensor and the rows.
double require_reference(const std::string& who, const Result& result, const Problem& problem,
                         const AttentionFunction& reference, bool backward);

// Compares every element of two results of the same function; each may be wrong by its own limit.
void require_same(const std::string& ours, const Result& a, const std::string& peer, const Result& b,
                  const Problem& problem, bool backward);

// Compares rows (last axis) of float32 results with the float64 reference of a function that chooses: 99 of
// 100 rows must be within 1e-4 of theirs, the others may have chosen another of two that score the same in
// float32. Returns the largest error of the 99; a row much smaller than the others is measured by a
// thousandth of their size.
double require_rows(const std::string& who, const char* what, const at::Tensor& found,
                    const at::Tensor& right);

// Throws Refusal when `flops` in `seconds` is above 1.1 times the peak of so many threads (the slack covers a
// clock that rises); peak = 0: unknown, never refused. Returns the share of the peak.
double require_possible_rate(const std::string& who, double flops, double seconds, double peak_of_thread,
                             int threads);

}  // namespace longreach::bench
