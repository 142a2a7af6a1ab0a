// What a run's header says of weight decay.
#include "train/decay_groups.h"

#include <gtest/gtest.h>

#include "models/transformer.h"

namespace longreach {
namespace {

TEST(DecayGroups, NamesEveryPartOnce) {
  ModelConfig config;
  config.hidden_size = 32;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 2;
  config.intermediate_size = 8;
  config.attention = {{.layers = "0", .config = DenseConfig{}}, {.layers = "1", .config = LightningConfig{}}};
  config.resolve(10);
  Transformer model(config, 1);
  DecayGroups groups = decay_groups(model);
  EXPECT_EQ(groups.decayed,
            "13 tensors of 11072 parameters (embed_tokens q_proj k_proj v_proj o_proj gate_proj up_proj "
            "down_proj qkvu_proj out_proj)");
  EXPECT_EQ(groups.left,
            "6 tensors of 192 parameters (input_layernorm post_attention_layernorm lrpe.theta norm)");
  for (auto& parameter : model.parameters()) parameter.set_requires_grad(parameter.dim() < 2);
  groups = decay_groups(model);
  EXPECT_EQ(groups.decayed, "nothing");
  EXPECT_EQ(groups.left.substr(0, 9), "5 tensors");
}

}  // namespace
}  // namespace longreach
