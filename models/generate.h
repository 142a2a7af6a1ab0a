// Sampling from a model, token by token, with the mechanisms' own decode states.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "models/transformer.h"

namespace longreach {

struct SamplingOptions {
  int64_t max_new_tokens = 256;
  double temperature = 1.0;  // 0: greedy, ties to the lowest id
  int64_t top_k = 0;         // 0: all
  double top_p = 1.0;
  uint64_t seed = 0;
  std::vector<int64_t> stop_tokens;
  std::vector<bool> drawable;    // by id; what lies outside it is not drawn. Empty: every id is
  int64_t prefill_chunk = 2048;  // prompt tokens fed at once
};

// Feeds the prompt, then samples; `on_token` gets each new token and may return false to stop. Returns the
// new tokens. The draw depends on seed and step alone.
std::vector<int64_t> generate(Transformer& model, const std::vector<int64_t>& prompt,
                              const SamplingOptions& options,
                              const std::function<bool(int64_t)>& on_token = {});

}  // namespace longreach
