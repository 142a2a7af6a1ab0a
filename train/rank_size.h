// What one of several ranks keeps of a model's state, and what it sends of it, counted from shapes.
#pragma once
#include <map>
#include <string>

#include "distributed/mesh.h"
#include "models/transformer.h"

namespace longreach {

// Bytes.
struct RankState {
  double weights = 0, gradients = 0, moments = 0;
  double trained = 0;   // of the weights
  double gathered = 0;  // stage 3: the layers in use and what belongs to none, while a step runs
  // Several ranks: the largest layer's gradients, as they came and packed.
  double in_flight = 0;
  // Of a step, by the label of the metrics; sums over numbers of ranks that are no power of two send some
  // elements more.
  std::map<std::string, double> sent;
};

// micro_batches: of a step, a rank. The model may be one of shapes alone.
RankState state_of_rank(const Transformer& model, const ParallelDegrees& degrees, int zero_stage,
                        int64_t micro_batches);

}  // namespace longreach
