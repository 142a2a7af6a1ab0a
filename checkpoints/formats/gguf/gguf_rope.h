// The rotary embedding between a GGUF file and RopeConfig.
#pragma once
#include <vector>

#include "layers/basic/layer_site.h"

namespace longreach {

// What each feature pair's frequency is divided by ("rope_freqs.weight" of a file) [D/2]: those of `llama3`.
std::vector<double> rope_divisors(const RopeConfig& rope, int64_t head_dim, int64_t positions);

// Finds the `llama3` scaling that has these divisors, and sets it; false when there is none. Of several that
// compute the same the simplest is taken. rope: theta is set.
bool find_llama3(const std::vector<float>& divisors, int64_t head_dim, RopeConfig& rope);

}  // namespace longreach
