// What transformers is told of a model, and that our reader makes the same model of it.
#include "checkpoints/formats/hugging_face_export.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "checkpoints/checked_file.h"
#include "checkpoints/formats/foreign_model.h"
#include "checkpoints/formats/hugging_face_family.h"
#include "checkpoints/formats/longreach_code.h"
#include "checkpoints/formats/modeling_sources.h"
#include "checkpoints/safetensors.h"
#include "core/config.h"
#include "core/error.h"
#include "core/temporary_folder.h"
#include "models/transformer.h"
#include "tests/checkpoints/formats/changed_models.h"
#include "tests/support/errors.h"
#include "tests/support/small_model.h"

namespace longreach {
namespace {

void minimax_hybrid(ModelConfig& c) {
  c.residual = {.form = "minimax",
                .full_attn_alpha_factor = 1.5,
                .full_attn_beta_factor = 0.75,
                .linear_attn_alpha_factor = 1.25,
                .linear_attn_beta_factor = 0.5,
                .mlp_alpha_factor = 1.125,
                .mlp_beta_factor = 0.875};
  c.attention = {layer("0", LightningConfig{.form = "minimax"}), layer("1", DenseConfig{})};
}

const std::vector<std::pair<const char*, Change>>& known() {
  static const std::vector<std::pair<const char*, Change>> all{
      {"llama", [](ModelConfig&) {}},
      {"llama", [](ModelConfig& c) { c.attention_bias = c.attention_output_bias = c.mlp_bias = true; }},
      {"llama", [](ModelConfig& c) { c.tie_word_embeddings = false, c.head_dim = 24; }},
      {"llama", [](ModelConfig& c) { c.rope = {.theta = 5e5, .rope_type = "linear", .factor = 2.5}; }},
      {"llama",
       [](ModelConfig& c) {
         c.rope = {.rope_type = "llama3", .factor = 8.0, .original_max_position_embeddings = 32};
       }},
      {"llama",
       [](ModelConfig& c) {
         c.rope = {.rope_type = "yarn",
                   .factor = 4.0,
                   .original_max_position_embeddings = 32,
                   .beta_fast = 16.0,
                   .beta_slow = 2.0,
                   .attention_factor = 1.5,
                   .truncate = false};
       }},
      {"mistral", [](ModelConfig& c) { c.attention = {layer("all", SlidingConfig{.window = 16})}; }},
      {"qwen2", [](ModelConfig& c) { c.attention_bias = true; }},
      {"qwen2",
       [](ModelConfig& c) {
         c.attention_bias = true;
         c.attention = {layer("0", SlidingConfig{.window = 16}), layer("1", DenseConfig{})};
       }},
      {"qwen3", [](ModelConfig& c) { c.qk_norm = true; }},
      {"qwen3", [](ModelConfig& c) { c.qk_norm = c.attention_bias = c.attention_output_bias = true; }},
      {"minimax", minimax_hybrid},
      {"minimax", [](ModelConfig& c) { c.residual = {.form = "minimax", .mlp_beta_factor = 0.5}; }},
  };
  return all;
}

TEST(HuggingFaceExport, IsReadBackAsTheSameModel) {
  for (const auto& [family, change] : known()) {
    const ModelConfig config = changed(change);
    EXPECT_EQ(hugging_face_family(config), family);
    const TemporaryFolder folder;
    const NamedTensors tensors = tensors_of(config);
    write_hugging_face(config, tensors, {}, folder.path());
    SCOPED_TRACE(family);
    expect_read_back(config, tensors, folder.path());
  }
}

// What transformers calls max_position_embeddings is where `dynamic` begins, and where yarn ends.
TEST(HuggingFaceExport, SaysPositionsAsTheOtherProgramCountsThem) {
  const auto positions = [](const RopeConfig& rope) {
    ModelConfig config = changed([](ModelConfig&) {});
    config.rope = rope;
    return hugging_face_keys(config).at("max_position_embeddings").get<int64_t>();
  };
  EXPECT_EQ(positions({.rope_type = "dynamic", .factor = 4.0, .original_max_position_embeddings = 32}), 32);
  EXPECT_EQ(positions({.rope_type = "yarn", .factor = 4.0, .original_max_position_embeddings = 64}), 256);
  EXPECT_EQ(positions({.rope_type = "yarn", .factor = 4.0}), 512);
  EXPECT_EQ(positions({.rope_type = "linear", .factor = 4.0}), 128);
}

TEST(HuggingFaceExport, NamesWhatNoFamilyHas) {
  const std::vector<std::pair<const char*, Change>> unknown{
      {"model.norm = \"srmsnorm\"", [](ModelConfig& c) { c.norm = "srmsnorm"; }},
      {"model.mlp = \"sglu\"", [](ModelConfig& c) { c.mlp = "sglu"; }},
      {"model.embedding_scale = 4", [](ModelConfig& c) { c.embedding_scale = 4.0; }},
      {"model.qk_norm beside model.residual = \"minimax\"",
       [](ModelConfig& c) { c.residual.form = "minimax", c.qk_norm = true; }},
      {"model.mlp_bias beside model.residual",
       [](ModelConfig& c) { c.residual.form = "minimax", c.mlp_bias = true; }},
      {"layer 0: form = \"transnormer\"",
       [](ModelConfig& c) {
         c.residual.form = "minimax";
         c.attention = {layer("all", LightningConfig{})};
       }},
      {"layer 1: decay = \"paper\"",
       [](ModelConfig& c) {
         minimax_hybrid(c);
         c.attention = {layer("0", DenseConfig{}),
                        layer("1", LightningConfig{.form = "minimax", .decay = "paper"})};
       }},
      {"layer 0: lrpe = \"on\"",
       [](ModelConfig& c) {
         minimax_hybrid(c);
         c.attention = {layer("all", LightningConfig{.form = "minimax", .lrpe = "on"})};
       }},
      {"layer 0: kind = \"sliding\"",
       [](ModelConfig& c) {
         minimax_hybrid(c);
         c.attention = {layer("all", SlidingConfig{})};
       }},
      {"layer 0: rope = false",
       [](ModelConfig& c) {
         minimax_hybrid(c);
         c.attention = {layer("all", DenseConfig{.rope = false})};
       }},
      {"layer 1: kind = \"lightning\"",
       [](ModelConfig& c) {
         c.attention = {layer("0", DenseConfig{}), layer("1", LightningConfig{})};
       }},
      {"layer 0: kind = \"nsa\"", [](ModelConfig& c) { c.attention = {layer("all", NsaConfig{})}; }},
      {"layer 0: rope = false",
       [](ModelConfig& c) { c.attention = {layer("all", DenseConfig{.rope = false})}; }},
      {"layer 0: output_gate = true",
       [](ModelConfig& c) { c.attention = {layer("all", DenseConfig{.output_gate = true})}; }},
      {"layer 0: scale = \"1/d\"",
       [](ModelConfig& c) {
         minimax_hybrid(c);
         c.attention = {layer("all", LightningConfig{.form = "minimax", .scale = "1/d"})};
       }},
      {"layer 0: sinks = 4",
       [](ModelConfig& c) { c.attention = {layer("all", SlidingConfig{.window = 16, .sinks = 4})}; }},
      {"layer 1: a second window",
       [](ModelConfig& c) {
         c.attention = {layer("0", SlidingConfig{.window = 16}), layer("1", SlidingConfig{.window = 8})};
       }},
      {"layers with a window beside some without",
       [](ModelConfig& c) {
         c.attention = {layer("0", SlidingConfig{.window = 16}), layer("1", DenseConfig{})};
       }},
      {"model.attention_output_bias = true", [](ModelConfig& c) { c.attention_output_bias = true; }},
      {"model.qk_norm beside biases", [](ModelConfig& c) { c.qk_norm = c.attention_bias = true; }},
      {"model.mlp_bias beside", [](ModelConfig& c) { c.attention_bias = c.mlp_bias = true; }},
      {"a window beside",
       [](ModelConfig& c) {
         c.mlp_bias = true;
         c.attention = {layer("all", SlidingConfig{.window = 16})};
       }},
  };
  for (const auto& [part, change] : unknown)
    test::expect_error<ConfigError>(part, [&, make = change] { hugging_face_family(changed(make)); });
}

NsaConfig mean_pool() {
  return {.compress_block = 16, .compress_stride = 16, .block_size = 16, .num_blocks = 4, .window = 24};
}

void fla_nsa(ModelConfig& c) {
  c.head_dim = 64;
  c.tie_word_embeddings = false;
  c.attention = {layer("all", mean_pool())};
}

// What flash-linear-attention's NSAForCausalLM and its layer NativeSparseAttention have: 2 layers of width
// 32, 4 heads of 64 over 2, a feed-forward block of 48, 64 tokens.
const std::map<std::string, std::vector<int64_t>>& fla_nsa_shapes() {
  static const auto shapes = [] {
    std::map<std::string, std::vector<int64_t>> all{
        {"model.embeddings.weight", {64, 32}}, {"model.norm.weight", {32}}, {"lm_head.weight", {64, 32}}};
    for (const char* number : {"0", "1"}) {
      const std::string prefix = text("model.layers.", number, ".");
      all[prefix + "attn_norm.weight"] = all[prefix + "mlp_norm.weight"] = {32};
      all[prefix + "attn.q_proj.weight"] = {256, 32};
      all[prefix + "attn.k_proj.weight"] = all[prefix + "attn.v_proj.weight"] = {128, 32};
      all[prefix + "attn.g_proj.weight"] = {12, 32};
      all[prefix + "attn.o_proj.weight"] = {32, 256};
      all[prefix + "mlp.gate_proj.weight"] = all[prefix + "mlp.up_proj.weight"] = {48, 32};
      all[prefix + "mlp.down_proj.weight"] = {32, 48};
    }
    return all;
  }();
  return shapes;
}

TEST(HuggingFaceExport, NativeSparseAttentionHasTheNamesAndShapesOfFla) {
  const ModelConfig config = changed(fla_nsa);
  const TemporaryFolder folder;
  const NamedTensors tensors = tensors_of(config);
  write_hugging_face(config, tensors, {.family = "nsa"}, folder.path());
  const SafetensorsFile file(folder.path("model.safetensors"));
  EXPECT_EQ(file.entries().size(), fla_nsa_shapes().size());
  for (const auto& [name, shape] : fla_nsa_shapes()) {
    ASSERT_TRUE(file.contains(name)) << name;
    EXPECT_EQ(file.tensor(name).sizes(), at::IntArrayRef(shape)) << name;
  }
  expect_read_back(config, tensors, folder.path());
}

TEST(HuggingFaceExport, NativeSparseAttentionWithBiasesAndATiedHeadIsReadBackFromFla) {
  const ModelConfig config = changed([](ModelConfig& c) {
    fla_nsa(c);
    c.attention_bias = c.tie_word_embeddings = true;
    c.rope.theta = 5e5, c.rms_norm_eps = 1e-4;
  });
  const TemporaryFolder folder;
  const NamedTensors tensors = tensors_of(config);
  write_hugging_face(config, tensors, {.family = "nsa"}, folder.path());
  expect_read_back(config, tensors, folder.path());
}

TEST(HuggingFaceExport, NamesWhatFlaDoesNotHave) {
  const auto with = [](void (*change)(NsaConfig&)) {
    ModelConfig config = test::small_model();
    fla_nsa(config);
    NsaConfig nsa = mean_pool();
    change(nsa);
    config.attention = {layer("0", mean_pool()), layer("1", nsa)};
    config.resolve(64);
    return config;
  };
  for (const auto& [part, config] : std::vector<std::pair<const char*, ModelConfig>>{
           {"layer 1: layout = \"xunhaolai\"", with([](NsaConfig& n) { n.layout = "xunhaolai"; })},
           {"layer 1: compress = \"mlp\"", with([](NsaConfig& n) { n.compress = "mlp"; })},
           {"layer 1: compress_block = 32", with([](NsaConfig& n) { n.compress_block = 32; })},
           {"layer 1: compress_stride = 8", with([](NsaConfig& n) { n.compress_stride = 8; })},
           {"layer 1: first_blocks = 0", with([](NsaConfig& n) { n.first_blocks = 0; })},
           {"layer 1: latest_blocks = 1", with([](NsaConfig& n) { n.latest_blocks = 1; })},
           {"layer 1: num_blocks = 5", with([](NsaConfig& n) { n.num_blocks = 5; })},
           {"layer 1: sizes unlike an earlier layer's", with([](NsaConfig& n) { n.window = 25; })},
           {"layer 0: kind = \"dense\"", changed([](ModelConfig&) {})},
           {"model.head_dim = 8 (its layers have 64)",
            changed([](ModelConfig& c) { fla_nsa(c), c.head_dim = 8; })},
           {"model.qk_norm", changed([](ModelConfig& c) { fla_nsa(c), c.qk_norm = true; })},
           {"model.mlp_bias", changed([](ModelConfig& c) { fla_nsa(c), c.mlp_bias = true; })},
           {"model.rope_scaling.rope_type",
            changed([](ModelConfig& c) { fla_nsa(c), c.rope = {.rope_type = "linear", .factor = 2.0}; })}})
    test::expect_error<ConfigError>(part, [&, made = config] { expect_hugging_face(made, "nsa"); });
}

TEST(HuggingFaceExport, WritesTheFamilyThatIsAskedFor) {
  const ModelConfig config = changed([](ModelConfig&) {});
  expect_hugging_face(config, "llama");
  test::expect_error<ConfigError>("family = \"qwen3\": the model is one of the family `llama`",
                                  [&] { expect_hugging_face(config, "qwen3"); });
  const TemporaryFolder folder;
  write_hugging_face(config, tensors_of(config), {.family = "longreach"}, folder.path());
  EXPECT_TRUE(std::filesystem::exists(folder.path(kLongreachCode)));
}

// What no family has goes out with Python of our own, and comes back by the keys beside it.
TEST(HuggingFaceExport, OtherModelsBringTheirCodeAndOurKeys) {
  const ModelConfig config = changed([](ModelConfig& c) {
    c.num_hidden_layers = 3;
    c.norm = "srmsnorm", c.mlp = "sglu", c.embedding_scale = 5.5;
    c.rope = {.theta = 2e4, .rope_type = "linear", .factor = 2.0};
    c.attention = {layer("0,2", LightningConfig{.decay = "paper"}),
                   layer("1", SlidingConfig{.window = 16, .sinks = 4})};
  });
  const TemporaryFolder folder;
  const NamedTensors tensors = tensors_of(config);
  write_hugging_face(config, tensors, {}, folder.path());
  const std::string code = read_text_file(folder.path(kLongreachCode), 1 << 20);
  EXPECT_TRUE(code.starts_with(modeling_sources().at("")));
  EXPECT_NE(code.find("class LightningAttention"), std::string::npos);
  EXPECT_NE(code.find("class SlidingAttention"), std::string::npos);
  EXPECT_EQ(code.find("class DenseAttention"), std::string::npos);
  ForeignModel read = open_foreign_model(folder.path());
  read.config.resolve(64);
  EXPECT_EQ(longreach_config(read.config), longreach_config(config));
  EXPECT_EQ(read.config.norm, "srmsnorm");
  EXPECT_EQ(read.config.attention.size(), 3u);
  for (const auto& [name, tensor] : tensors)
    EXPECT_TRUE(at::equal(read.tensors->tensor(name), tensor)) << name;
}

TEST(HuggingFaceExport, KeysThatAreNotOursAreNamed) {
  const auto read = [](const char* keys) {
    ModelConfig config;
    read_longreach_config(nlohmann::json::parse(keys), "x/config.json", config);
  };
  for (const auto& [keys, part] :
       {std::pair{R"({})", "`longreach`: expected a table"},
        {R"({"longreach": {"hidden_sise": 3}})", "hidden_sise"},
        {R"({"longreach": {"hidden_size": null}})", "longreach.hidden_size: expected a value"},
        {R"({"longreach": {"hidden_size": [[1]]}})", "longreach.hidden_size: expected a value"},
        {R"({"longreach": {"hidden_size": -3}})", "hidden_size"},
        {R"({"longreach": {"attention": [{"kind": "dense"}, 3]}})", "expected tables in"},
        {R"({"longreach": {"rope_scaling": {"x": {}}}})", "longreach.x: expected a value"},
        {R"({"longreach": {"a\"]\nb": 1}})", "config.json"}})
    test::expect_error<ConfigError>(part, [&, text = keys] { read(text); });
}

TEST(HuggingFaceExport, LargeModelsLieInShardsWithAnIndex) {
  const ModelConfig config = changed([](ModelConfig&) {});
  const NamedTensors tensors = tensors_of(config);
  const TemporaryFolder folder;
  write_hugging_face(config, tensors, {.dtype = at::kBFloat16, .shard_bytes = 8192}, folder.path());
  EXPECT_FALSE(std::filesystem::exists(folder.path("model.safetensors")));
  const auto index =
      nlohmann::json::parse(read_text_file(folder.path("model.safetensors.index.json"), 1 << 20));
  int64_t elements = 0;
  for (const auto& item : tensors) elements += item.second.numel();
  EXPECT_EQ(index.at("metadata").at("total_size").get<int64_t>(), 2 * elements);
  std::set<std::string> files;
  for (const auto& item : index.at("weight_map").items()) files.insert(item.value().get<std::string>());
  EXPECT_GT(files.size(), 2u);
  for (const std::string& file : files)
    EXPECT_LE(std::filesystem::file_size(folder.path(file)), 8192u + 4096u);
  const ForeignModel read = open_foreign_model(folder.path());
  for (const auto& [name, tensor] : tensors)
    EXPECT_TRUE(at::equal(read.tensors->tensor(name), tensor.to(at::kBFloat16))) << name;
}

// MiniMax's class reads its slopes from the file: rounded like weights they would decay otherwise.
TEST(HuggingFaceExport, MinimaxKeepsItsDecaysAndARouter) {
  const ModelConfig config = changed(minimax_hybrid);
  const TemporaryFolder folder;
  write_hugging_face(config, tensors_of(config), {.dtype = at::kBFloat16}, folder.path());
  const SafetensorsFile file(folder.path("model.safetensors"));
  const at::Tensor slopes = file.tensor("model.layers.0.self_attn.slope_rate");
  EXPECT_EQ(slopes.scalar_type(), at::kFloat);
  const at::Tensor decay = lightning_log_decay("minimax", 4, 0, 2).neg().to(at::kFloat);
  EXPECT_TRUE(at::equal(slopes.flatten(), decay));
  for (const int64_t distance : {0, 1, 63}) {
    const at::Tensor last = file.tensor("model.layers.0.self_attn.diagonal_decay")[0].select(1, 63);
    EXPECT_TRUE(at::equal(last.select(1, 63 - distance), (decay * distance).neg().exp()));
  }
  EXPECT_EQ(file.tensor("model.layers.1.block_sparse_moe.gate.weight").sizes(), (at::IntArrayRef{1, 32}));
  EXPECT_EQ(file.tensor("model.layers.1.block_sparse_moe.experts.0.w2.weight").scalar_type(), at::kBFloat16);
  EXPECT_FALSE(file.contains("model.layers.1.self_attn.slope_rate"));
}

TEST(HuggingFaceExport, WritesTheTokenizersEndsAndFiles) {
  const ModelConfig config = changed([](ModelConfig&) {});
  const TemporaryFolder folder;
  write_hugging_face(
      config, tensors_of(config),
      {.dtype = at::kHalf, .eos = 2, .files = {{"tokenizer.json", "{}"}, {"generation_config.json", "[]"}}},
      folder.path());
  const auto json = nlohmann::json::parse(read_text_file(folder.path("config.json"), 1 << 20));
  EXPECT_TRUE(json.at("bos_token_id").is_null());
  EXPECT_EQ(json.at("eos_token_id"), 2);
  EXPECT_EQ(json.at("torch_dtype"), "float16");
  EXPECT_EQ(json.at("architectures"), nlohmann::json::array({"LlamaForCausalLM"}));
  EXPECT_EQ(read_text_file(folder.path("tokenizer.json"), 100), "{}");
  EXPECT_EQ(read_text_file(folder.path("generation_config.json"), 100), "[]");  // the tokenizer's own wins
}

}  // namespace
}  // namespace longreach
