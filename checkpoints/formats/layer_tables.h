// [[model.attention]] of models whose layers are of two kinds.
#pragma once
#include <vector>

#include "models/model_config.h"

namespace longreach {

// One table for each of the two kinds that there is. special: of each layer, whether it is of `kind`.
void set_layers(ModelConfig& config, const std::vector<bool>& special, const AttentionConfig& kind,
                const AttentionConfig& other);

}  // namespace longreach
