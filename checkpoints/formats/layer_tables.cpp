#include "checkpoints/formats/layer_tables.h"

#include "core/error.h"

namespace longreach {

void set_layers(ModelConfig& config, const std::vector<bool>& special, const AttentionConfig& kind,
                const AttentionConfig& other) {
  const auto layers_of = [&](bool which) -> std::string {
    std::vector<std::string> layers;
    for (size_t i = 0; i < special.size(); ++i)
      if (special[i] == which) layers.push_back(std::to_string(i));
    return layers.size() == special.size() ? "all" : join(layers, ",");
  };
  config.attention.clear();
  for (const bool which : {false, true})
    if (const std::string layers = layers_of(which); !layers.empty())
      config.attention.push_back({.layers = layers, .config = which ? kind : other});
}

}  // namespace longreach
