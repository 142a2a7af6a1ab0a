// Which token comes next: the greedy one, or one drawn by its probability.
#pragma once
#include <cstdint>
#include <vector>

#include "models/generate.h"

namespace longreach {

// One of `ids`, by their `logits` [vocab] and the temperature, top_k, top_p and seed of the options; of equal
// ones the lowest is the likeliest. The random number of step n is a hash of (seed, n), so that a text does
// not depend on what was drawn before.
int64_t sample(const std::vector<double>& logits, const std::vector<int64_t>& ids,
               const SamplingOptions& options, int64_t step);

}  // namespace longreach
