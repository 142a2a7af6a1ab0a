// How evenly the ranks that share a micro-batch work, and how much of each other they read.
#pragma once
#include <optional>

namespace longreach {

// Of a whole step.
struct ContextFigures {
  // Predicted: the cost of the dearest rank over the mean of its group, mean over the micro-batches.
  double imbalance = 1;
  // Measured: the time of passes without waiting, of the slowest rank over the mean of its group, in the
  // group where that is most.
  double slowest_over_mean = 1;
  // Of the blocks before ranks' pieces, the share that somebody on the rank chose; nothing where no layer
  // chooses blocks or no piece has blocks before it.
  std::optional<double> selected_union;
};

}  // namespace longreach
