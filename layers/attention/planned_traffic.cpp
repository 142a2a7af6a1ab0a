#include "layers/attention/planned_traffic.h"

#include <torch/nn/module.h>

namespace longreach {

PlannedTraffic planned_traffic(const torch::nn::Module& model,
                               const std::shared_ptr<const ContextGroup>& context, at::ScalarType dtype) {
  PlannedTraffic all;
  for (const auto& child : model.children()) {
    const auto* layer = dynamic_cast<const TrafficPlanner*>(child.get());
    const PlannedTraffic own =
        layer ? layer->planned_traffic(context, dtype) : planned_traffic(*child, context, dtype);
    for (const auto& [label, bytes] : own.forward) all.forward[label] += bytes;
    for (const auto& [label, bytes] : own.backward) all.backward[label] += bytes;
  }
  return all;
}

}  // namespace longreach
