// What taught gates are worth: perplexity of held-out text under the blocks they choose, beside other choices
// of as many blocks.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "layers/attention/common/taught_gates.h"
#include "train/evaluate.h"

namespace longreach {

struct GateResult {
  std::string policy;   // dense, oracle, gate, window, random
  double asked = 1;     // density
  double measured = 1;  // (row, block) pairs read / causal ones
  double nll = 0;       // nats a token
  double perplexity = 0;
};

// One row a (density, policy), after one for dense attention. Throws ConfigError when no layer has a
// gate.
std::vector<GateResult> evaluate_gates(Transformer& model, const data::ValidLoader& loader,
                                       const std::vector<double>& densities, int64_t rows, int64_t batch_rows,
                                       const LossOptions& options, const EvaluationProgress& progress);

// Maps of one layer on the first held-out row.
GateMaps gate_maps(Transformer& model, const data::ValidLoader& loader, int64_t layer);

}  // namespace longreach
