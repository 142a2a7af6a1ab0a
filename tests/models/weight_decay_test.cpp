// Which parameters weight decay acts on: matrices and embeddings, of every mechanism and option.
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "layers/basic/module.h"
#include "models/adapter.h"
#include "models/transformer.h"
#include "tests/support/small_model.h"

namespace longreach {
namespace {

std::set<std::string> last_words(const ModelConfig& config, bool decayed, const AdapterConfig& adapter = {}) {
  Transformer model(config, 1);
  add_adapters(model, adapter, 1);
  const std::set<std::string> undecayed = undecayed_parameters(model);
  std::set<std::string> words;
  for (const auto& item : model.named_parameters()) {
    if ((undecayed.count(item.key()) == 0) != decayed) continue;
    const std::string& name = item.key();
    const size_t layer = name.find("layers.");
    words.insert(layer == std::string::npos ? name : name.substr(name.find('.', layer + 7) + 1));
  }
  return words;
}

ModelConfig model_of(const AttentionConfig& attention) {
  ModelConfig config = test::small_model();
  config.attention = {{.layers = "all", .config = attention}};
  config.resolve(50);
  return config;
}

using Words = std::set<std::string>;

Words with(Words words, const Words& more) {
  words.insert(more.begin(), more.end());
  return words;
}

const Words kNorms{"input_layernorm.weight", "post_attention_layernorm.weight", "model.norm.weight"};
const Words kMlp{"mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"};
const Words kProjections{"self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight",
                         "self_attn.o_proj.weight", "model.embed_tokens.weight"};

TEST(WeightDecay, TakesMatricesAndEmbeddingsAndLeavesNormsAndBiases) {
  ModelConfig config = model_of(DenseConfig{});
  config.qk_norm = config.attention_bias = true;
  config.tie_word_embeddings = false;
  EXPECT_EQ(last_words(config, true), with(with(kMlp, kProjections), {"lm_head.weight"}));
  EXPECT_EQ(last_words(config, false),
            with(kNorms, {"self_attn.q_norm.weight", "self_attn.k_norm.weight", "self_attn.q_proj.bias",
                          "self_attn.k_proj.bias", "self_attn.v_proj.bias"}));
}

TEST(WeightDecay, LeavesFrequenciesOfLightning) {
  const Words inner{"self_attn.norm.weight", "self_attn.o_norm.weight", "self_attn.q_norm.weight",
                    "self_attn.k_norm.weight"};
  for (const LightningConfig& lightning :
       {LightningConfig{}, LightningConfig{.form = "minimax"}, LightningConfig{.form = "hypenet"}}) {
    const Words left = last_words(model_of(lightning), false);
    for (const std::string& name : left)
      EXPECT_TRUE(kNorms.count(name) || name == "self_attn.lrpe.theta" || inner.count(name)) << name;
  }
  EXPECT_EQ(last_words(model_of(LightningConfig{}), false).count("self_attn.lrpe.theta"), 1u);
}

TEST(WeightDecay, LeavesPositionsAndConstantsOfNsa) {
  const Words positions{"self_attn.intra_block_pe", "self_attn.intra_block_pe_value"};
  NsaConfig nsa;
  nsa.layout = "lucidrains";
  nsa.compress = "mlp";
  nsa.memory_slots = 1;
  EXPECT_EQ(last_words(model_of(nsa), false),
            with(with(kNorms, positions),
                 {"self_attn.compress_memory", "self_attn.g_proj.bias", "self_attn.compress_key.up.bias",
                  "self_attn.compress_key.down.bias", "self_attn.compress_value.up.bias",
                  "self_attn.compress_value.down.bias"}));
  nsa = {};
  nsa.compress = "weighted";
  EXPECT_EQ(last_words(model_of(nsa), false),
            with(kNorms, {"self_attn.intra_block_pe", "self_attn.compress_key", "self_attn.compress_value"}));
  nsa.compress = "linear";
  EXPECT_EQ(last_words(model_of(nsa), false), with(kNorms, {"self_attn.intra_block_pe"}));
  EXPECT_EQ(last_words(model_of(nsa), true).count("self_attn.compress_key"), 1u);
}

TEST(WeightDecay, TakesTheGatesMatricesAndLeavesTheirNorms) {
  const Words gate{"self_attn.attn_gate.attngate_linear_q.weight",
                   "self_attn.attn_gate.attngate_linear_k.weight"},
      norms{"self_attn.attn_gate.attngate_qnorm.weight", "self_attn.attn_gate.attngate_knorm.weight"};
  const ModelConfig config = model_of(SeerConfig{.gate_hidden = 8});
  EXPECT_EQ(last_words(config, true), with(with(kMlp, kProjections), gate));
  EXPECT_EQ(last_words(config, false), with(kNorms, norms));
}

TEST(WeightDecay, TakesAdapters) {
  AdapterConfig adapter;
  adapter.type = "lora";
  adapter.target_modules = {"q_proj"};
  EXPECT_EQ(last_words(model_of(DenseConfig{}), false, adapter), kNorms);
}

// What another library's module holds is judged by its shape.
TEST(WeightDecay, JudgesForeignModulesByShape) {
  torch::nn::Module root;
  root.register_parameter("matrix", at::zeros({2, 2}));
  root.register_parameter("vector", at::zeros({2}));
  EXPECT_EQ(undecayed_parameters(root), Words{"vector"});
}

}  // namespace
}  // namespace longreach
