// What ranks that share rows send of them in a step, counted before it is trained.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "data/loader.h"
#include "distributed/mesh.h"
#include "models/transformer.h"
#include "train/run_config.h"

namespace longreach {

// Bytes of the first step, by the label of the metrics: of each rank of the first context group. What data
// choose is counted as if all were chosen, and gradients that a partly frozen model does not need as if it
// did: those are upper bounds. The model may be one of shapes alone.
std::vector<std::map<std::string, int64_t>> context_traffic(const RunConfig& config,
                                                            const std::shared_ptr<Transformer>& model,
                                                            const data::TrainLoader& loader,
                                                            const ParallelDegrees& degrees);

}  // namespace longreach
