// Which parameters of a model travel together.
#pragma once
#include <torch/nn/module.h>

#include <map>
#include <memory>
#include <vector>

#include "distributed/flat_unit.h"

namespace longreach {

struct UnitParameters {
  FlatUnit::Named trained;  // float32
  std::map<at::ScalarType, FlatUnit::Named> frozen;
};

// Of each unit, in the order of the backward pass, which is the reverse of theirs; last what no unit has, or
// several have. A parameter with several names goes by the first. Throws ConfigError naming a trainable
// parameter that is not float32.
std::vector<UnitParameters> parameters_of_units(const torch::nn::Module& model,
                                                const std::vector<std::shared_ptr<torch::nn::Module>>& units);

}  // namespace longreach
