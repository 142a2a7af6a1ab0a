// Sizes of a model that is small enough for tests of whole models, with grouped heads and weights that
// matter.
#pragma once
#include "models/model_config.h"

namespace longreach::test {

// Not resolved yet; dense everywhere.
inline ModelConfig small_model() {
  ModelConfig config;
  config.hidden_size = 32;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.intermediate_size = 48;
  config.initializer_range = 0.2;
  return config;
}

}  // namespace longreach::test
