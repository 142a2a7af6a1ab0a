// What SeerAttention's gates are worth: perplexity of held-out text under the blocks they choose, beside other
// choices of as many blocks.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "layers/attention/seer/trial.h"
#include "train/evaluate.h"

namespace longreach {

struct GateTrial {
  std::string policy;   // dense, oracle, gate, window, random
  double asked = 1;     // density
  double measured = 1;  // (row, block) pairs read / causal ones
  double nll = 0;       // nats a token
  double perplexity = 0;
};

// One row a (density, policy), after one for dense attention. Throws ConfigError when the model has no layer of
// kind "seer".
std::vector<GateTrial> evaluate_gates(Transformer& model, const data::ValidLoader& loader,
                                      const std::vector<double>& densities, int64_t rows, int64_t batch_rows,
                                      const LossOptions& options, const EvaluationProgress& progress);

// Maps of one layer on the first held-out row.
SeerMaps gate_maps(Transformer& model, const data::ValidLoader& loader, int64_t layer);

}  // namespace longreach
