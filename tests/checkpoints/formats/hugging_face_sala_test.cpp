// MiniCPM-SALA: what its programs are told of a model, and that our reader makes the same model of it.
#include "checkpoints/formats/hugging_face_sala.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "checkpoints/formats/hugging_face_export.h"
#include "checkpoints/formats/hugging_face_family.h"
#include "checkpoints/formats/longreach_code.h"
#include "core/error.h"
#include "core/temporary_folder.h"
#include "tests/checkpoints/formats/changed_models.h"
#include "tests/support/errors.h"

namespace longreach {
namespace {

void sala_hybrid(ModelConfig& c) {
  c.num_hidden_layers = 3;
  c.tie_word_embeddings = false;
  const LightningConfig lightning{.form = "hypenet", .scale = "1/sqrt(d)"};
  c.attention = {layer("0,2", DenseConfig{.rope = false, .output_gate = true}), layer("1", lightning)};
}

void sala_sparse(ModelConfig& c) {
  sala_hybrid(c);
  c.attention[0].config = InfllmConfig{.rope = false, .output_gate = true};
}

TEST(HuggingFaceSala, SaysWhichBlocksItsSparseLayersRead) {
  const nlohmann::ordered_json json = hugging_face_keys(changed(sala_sparse), "minicpm_sala");
  const nlohmann::json expected{{"kernel_size", 32}, {"kernel_stride", 16}, {"init_blocks", 1},
                                {"block_size", 64},  {"window_size", 2048}, {"topk", 64},
                                {"use_nope", false}, {"dense_len", 0}};
  EXPECT_EQ(nlohmann::json(json.at("sparse_config")), expected);
  EXPECT_EQ(json.at("attn_use_output_gate"), true);
  EXPECT_EQ(json.at("attn_use_rope"), false);
}

TEST(HuggingFaceSala, IsReadBackAsTheSameModel) {
  const std::vector<Change> changes{
      sala_hybrid,
      [](ModelConfig& c) {
        sala_hybrid(c);
        c.embedding_scale = 5.5;
        c.attention = {layer("0", DenseConfig{.rope = false}),
                       layer("1,2", LightningConfig{.form = "hypenet", .scale = "1/d", .rope = false})};
      },
      [](ModelConfig& c) { c.attention = {layer("all", DenseConfig{.rope = false})}; }, sala_sparse,
      [](ModelConfig& c) {
        const InfllmConfig small{.kernel_size = 8,
                                 .kernel_stride = 4,
                                 .block_size = 16,
                                 .num_blocks = 3,
                                 .first_blocks = 2,
                                 .window = 48,
                                 .dense_len = 100,
                                 .rope = false};
        c.attention = {layer("all", small)};
      }};
  for (const Change change : changes) {
    const ModelConfig config = changed(change);
    const TemporaryFolder folder;
    const NamedTensors tensors = tensors_of(config);
    write_hugging_face(config, tensors, {.family = "minicpm_sala"}, folder.path());
    EXPECT_FALSE(std::filesystem::exists(folder.path(kLongreachCode)));
    expect_read_back(config, tensors, folder.path());
  }
}

TEST(HuggingFaceSala, ScalesNothing) {
  const nlohmann::ordered_json json = hugging_face_keys(changed(sala_hybrid), "minicpm_sala");
  EXPECT_EQ(json.at("architectures"), nlohmann::json::array({"MiniCPMSALAForCausalLM"}));
  EXPECT_EQ(json.at("mixer_types"), nlohmann::json::array({"minicpm4", "lightning-attn", "minicpm4"}));
  EXPECT_EQ(json.at("scale_emb"), 1.0);
  EXPECT_EQ(json.at("scale_depth"), std::sqrt(3.0));
  EXPECT_EQ(json.at("dim_model_base"), 32);
  EXPECT_TRUE(json.at("sparse_config").is_null());
}

TEST(HuggingFaceSala, NamesWhatItDoesNotHave) {
  const std::vector<std::pair<const char*, Change>> unknown{
      {"layer 0: kind = \"lightning\": the first layer of MiniCPMSALAForCausalLM has a softmax",
       [](ModelConfig& c) { c.attention = {layer("all", LightningConfig{.form = "hypenet"})}; }},
      {"layer 0: rope = true", [](ModelConfig&) {}},
      {"layer 0: kind = \"nsa\"", [](ModelConfig& c) { c.attention = {layer("all", NsaConfig{})}; }},
      {"layer 1: form = \"minimax\"",
       [](ModelConfig& c) {
         sala_hybrid(c);
         c.attention[1] = layer("1", LightningConfig{.form = "minimax"});
       }},
      {"layer 1: decay = \"none\"",
       [](ModelConfig& c) {
         sala_hybrid(c);
         c.attention[1] = layer("1", LightningConfig{.form = "hypenet", .decay = "none"});
       }},
      {"layer 1: output_gate = false unlike",
       [](ModelConfig& c) {
         c.attention = {layer("0", DenseConfig{.rope = false, .output_gate = true}),
                        layer("1", DenseConfig{.rope = false})};
       }},
      {"layer 0: rope = true", [](ModelConfig& c) { c.attention = {layer("all", InfllmConfig{})}; }},
      {"layer 2: kind = \"dense\" beside an earlier layer's \"infllm\"",
       [](ModelConfig& c) {
         sala_sparse(c);
         c.attention = {layer("0", InfllmConfig{.rope = false}),
                        layer("1", LightningConfig{.form = "hypenet"}),
                        layer("2", DenseConfig{.rope = false})};
       }},
      {"layer 1: kind = \"infllm\" beside an earlier layer's \"dense\"",
       [](ModelConfig& c) {
         c.attention = {layer("0", DenseConfig{.rope = false}), layer("1", InfllmConfig{.rope = false})};
       }},
      {"layer 1: options of \"infllm\" unlike",
       [](ModelConfig& c) {
         c.attention = {layer("0", InfllmConfig{.rope = false}),
                        layer("1", InfllmConfig{.num_blocks = 32, .rope = false})};
       }},
      {"layer 2: scale = \"none\" unlike",
       [](ModelConfig& c) {
         sala_hybrid(c);
         c.attention = {layer("0", DenseConfig{.rope = false}),
                        layer("1", LightningConfig{.form = "hypenet"}),
                        layer("2", LightningConfig{.form = "hypenet", .scale = "none"})};
       }},
      {"layer 2: rope = false unlike",
       [](ModelConfig& c) {
         sala_hybrid(c);
         c.attention = {layer("0", DenseConfig{.rope = false}),
                        layer("1", LightningConfig{.form = "hypenet"}),
                        layer("2", LightningConfig{.form = "hypenet", .rope = false})};
       }},
      {"model.qk_norm", [](ModelConfig& c) { sala_hybrid(c), c.qk_norm = true; }},
      {"model.attention_bias", [](ModelConfig& c) { sala_hybrid(c), c.attention_bias = true; }},
      {"model.mlp_bias", [](ModelConfig& c) { sala_hybrid(c), c.mlp_bias = true; }},
      {"model.norm", [](ModelConfig& c) { sala_hybrid(c), c.norm = "srmsnorm"; }},
      {"model.residual", [](ModelConfig& c) { sala_hybrid(c), c.residual.form = "minimax"; }},
      {"model.rope_scaling.rope_type = \"linear\"",
       [](ModelConfig& c) { sala_hybrid(c), c.rope = {.rope_type = "linear", .factor = 2.0}; }},
  };
  for (const auto& [part, change] : unknown)
    test::expect_error<ConfigError>(
        part, [&, make = change] { expect_hugging_face(changed(make), "minicpm_sala"); });
}

}  // namespace
}  // namespace longreach
