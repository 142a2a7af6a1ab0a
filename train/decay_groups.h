// What weight decay acts on, in words.
#pragma once
#include <torch/nn/module.h>

#include <string>

namespace longreach {

// The parameters that train in two groups, each as "8 tensors of 13312 parameters (embed_tokens q_proj ...)",
// where a part of all layers is named once.
struct DecayGroups {
  std::string decayed, left;
};
DecayGroups decay_groups(const torch::nn::Module& model);

}  // namespace longreach
