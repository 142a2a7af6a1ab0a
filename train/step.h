// The forward and backward passes of one optimizer step.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "models/transformer.h"
#include "train/model_input.h"
#include "train/run_config.h"

namespace longreach {

struct StepData {
  std::vector<ModelInput> micro_batches;
  int64_t tokens = 0, labelled = 0;
};

struct StepLosses {
  double loss = 0;  // cross-entropy, mean nats a label over the whole step; distilling: what is minimised
  std::vector<std::pair<std::string, double>> auxiliary;
};

// Leaves the gradient of the step in the parameters, which hold none before. Everything is divided by what
// the whole step counts, so that its cut into micro-batches changes nothing. steps_done: how many steps went
// before, from which masks of dropout follow.
StepLosses backward_of_step(Transformer& model, const StepData& data, int64_t steps_done,
                            const RunConfig& config, const LossOptions& options);

}  // namespace longreach
