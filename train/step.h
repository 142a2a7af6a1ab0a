// The forward and backward passes of one optimizer step.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "distributed/data_parallel.h"
#include "models/transformer.h"
#include "train/context_figures.h"
#include "train/run_config.h"
#include "train/step_data.h"
#include "train/teacher.h"

namespace longreach {

struct StepLosses {
  double loss = 0;  // cross-entropy, mean nats a label over the whole step; distilling: what is minimised
  std::vector<std::pair<std::string, double>> auxiliary;
  std::vector<double> seconds;  // of each data rank: its data's and its passes', without waiting for others
  std::optional<ContextFigures> context;  // where ranks share micro-batches
};

// Between begin_step() and finish() of `parallel`: leaves there this rank's part of the step's gradient; the
// parts of all ranks add up to it. Everything is divided by what the whole step counts, so that its cut into
// micro-batches and ranks changes nothing. The losses are those of the whole step, the same on all ranks:
// with one micro-batch each, bit for bit what one rank gets of all of them. steps_done: how many steps went
// before, from which masks of dropout follow. teacher: whom job.task = "distill" learns from, null: gates
// learn from their layers.
StepLosses backward_of_step(Transformer& model, DataParallel& parallel, const StepData& data,
                            int64_t steps_done, const RunConfig& config, const LossOptions& options,
                            const Mesh& mesh, const Teacher* teacher = nullptr);

}  // namespace longreach
