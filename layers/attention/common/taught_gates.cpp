#include "layers/attention/common/taught_gates.h"

#include <torch/nn/module.h>

namespace longreach {

std::vector<GatedLayer*> gated_layers(torch::nn::Module& model) {
  std::vector<GatedLayer*> layers;
  for (const auto& module : model.modules())
    if (auto* layer = dynamic_cast<GatedLayer*>(module.get())) layers.push_back(layer);
  return layers;
}

}  // namespace longreach
