// What a layer would send of a row that ranks share, before it is sent.
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace torch::nn {
class Module;
}

namespace longreach {

class ContextGroup;

// Bytes that leave a rank for others, by the label of the metrics.
struct PlannedTraffic {
  std::map<std::string, int64_t> forward, backward;
};

// Every Attention of the project is one as well.
class TrafficPlanner {
 public:
  virtual ~TrafficPlanner() = default;

  // What forward and backward would send of this rank's part of a row, x in `dtype`; where data choose
  // blocks, as if all were chosen that may be. Nothing is exchanged and no weight is read: the group may be
  // of absent ranks (distributed/absent_rank.h), the module of shapes alone.
  virtual PlannedTraffic planned_traffic(const std::shared_ptr<const ContextGroup>& context,
                                         at::ScalarType dtype) const = 0;
};

// Of all layers of a model.
PlannedTraffic planned_traffic(const torch::nn::Module& model,
                               const std::shared_ptr<const ContextGroup>& context, at::ScalarType dtype);

}  // namespace longreach
