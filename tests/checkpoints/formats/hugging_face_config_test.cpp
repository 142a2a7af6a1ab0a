// Hugging Face's config.json as the sizes of a model, and errors that name file and key.
#include "checkpoints/formats/hugging_face_config.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/config.h"
#include "core/temporary_folder.h"

namespace longreach {
namespace {

class HuggingFace : public testing::Test {
 protected:
  std::string write(const std::string& json) const { return folder_.write("config.json", json); }
  std::string error(const std::string& json) const {
    ModelConfig config;
    try {
      read_hugging_face_config(write(json), config);
    } catch (const ConfigError& failure) {
      return failure.what();
    }
    return "";
  }
  const TemporaryFolder folder_;
};

ModelConfig parse(const std::string& toml) {
  ModelConfig config{.read_sizes = read_hugging_face_config};
  ConfigDocument::from_text(toml, "run.toml").read(fields_of(config));
  return config;
}

const std::string kSmolLm2 =
    R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576,
  "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64,
  "hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 100000.0, "max_position_embeddings": 8192, "vocab_size": 49152,
  "tie_word_embeddings": true, "attention_bias": false, "mlp_bias": false, "rope_scaling": null})";

TEST_F(HuggingFace, SmolLm2) {
  ModelConfig config = parse("config = '" + write(kSmolLm2) + "'\n");
  config.resolve(49152);
  EXPECT_EQ(config.hidden_size, 576);
  EXPECT_EQ(config.num_key_value_heads, 3);
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_EQ(config.rope.theta, 100000.0);
  EXPECT_EQ(config.rope.rope_type, "default");
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.config, "");
}

TEST_F(HuggingFace, KeysBesideTheFileWin) {
  write(kSmolLm2);
  ModelConfig config =
      parse("hidden_size = 256\nnum_hidden_layers = 4\nhead_dim = 32\nconfig = '" + folder_.path() + "'\n");
  config.resolve(49152);
  EXPECT_EQ(config.hidden_size, 256);  // also our default: being written is what counts
  EXPECT_EQ(config.num_hidden_layers, 4);
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_EQ(config.intermediate_size, 1536);
  const std::string printed = to_toml(fields_of(config));
  EXPECT_NE(printed.find("hidden_size = 256"), std::string::npos);
}

TEST_F(HuggingFace, ScalingsOfEveryEra) {
  const auto rope = [&](const std::string& member) {
    ModelConfig config;
    read_hugging_face_config(write(R"({"model_type": "llama", )" + member + "}"), config);
    return config.rope;
  };
  EXPECT_EQ(rope(R"("rope_scaling": {"type": "linear", "factor": 2})").rope_type, "linear");
  const RopeConfig llama3 =
      rope(R"("rope_theta": 500000, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
      "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192})");
  EXPECT_EQ(llama3.rope_type, "llama3");
  EXPECT_EQ(llama3.theta, 500000.0);
  EXPECT_EQ(llama3.original_max_position_embeddings, 8192);
  EXPECT_EQ(rope(R"("rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0})").theta, 1e6);
  const RopeConfig yarn = rope(R"("rope_scaling": {"type": "yarn", "factor": 4.0, "truncate": false,
      "mscale": 1.2, "mscale_all_dim": 0.7, "original_max_position_embeddings": 32})");
  EXPECT_FALSE(yarn.truncate);
  const RopeConfig longrope = rope(R"("max_position_embeddings": 128, "rope_scaling": {"type": "longrope",
      "original_max_position_embeddings": 32, "short_factor": [1, 1.5], "long_factor": [2, 4.5]})");
  EXPECT_EQ(longrope.factor, 4.0);
  EXPECT_EQ(longrope.short_factor, (std::vector<double>{1.0, 1.5}));
  EXPECT_EQ(longrope.long_factor, (std::vector<double>{2.0, 4.5}));
  EXPECT_THROW(rope(R"("rope_scaling": {"type": "longrope", "original_max_position_embeddings": 32,
      "short_factor": [1, -1], "long_factor": [2, 4]})"),
               ConfigError);
  EXPECT_THROW(rope(R"("rope_scaling": {"type": "longrope", "short_factor": [1], "long_factor": [2]})"),
               ConfigError);
  EXPECT_NEAR(yarn.attention_factor, (0.12 * std::log(4.0) + 1) / (0.07 * std::log(4.0) + 1), 1e-12);
}

TEST_F(HuggingFace, FamiliesDiffer) {
  ModelConfig qwen2, qwen3, mistral;
  read_hugging_face_config(
      write(R"({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": false})"), qwen2);
  EXPECT_TRUE(qwen2.attention_bias);
  EXPECT_TRUE(qwen2.attention.empty());
  EXPECT_FALSE(qwen2.tie_word_embeddings);
  read_hugging_face_config(write(R"({"model_type": "qwen3", "head_dim": 128})"), qwen3);
  EXPECT_TRUE(qwen3.qk_norm);
  const std::string path = write(R"({"model_type": "mistral", "sliding_window": 4096})");
  read_hugging_face_config(path, mistral);
  EXPECT_EQ(std::get<SlidingConfig>(mistral.attention.at(0).config).window, 4096);
  EXPECT_EQ(parse("config = '" + path + "'\n[[attention]]\nkind = 'dense'\n").attention.at(0).kind(),
            "dense");
}

TEST_F(HuggingFace, WindowsAreOfLayers) {
  ModelConfig config;
  const std::string sizes = R"("num_hidden_layers": 4, "sliding_window": 16, "use_sliding_window": true, )";
  read_hugging_face_config(write(R"({"model_type": "qwen2", )" + sizes + R"("max_window_layers": 3})"),
                           config);
  ASSERT_EQ(config.attention.size(), 2u);
  EXPECT_EQ(config.attention[0].layers, "0,1,2");
  EXPECT_EQ(config.attention[1].layers, "3");
  EXPECT_EQ(std::get<SlidingConfig>(config.attention[1].config).window, 16);
  read_hugging_face_config(write(R"({"model_type": "mistral"})"), config);
  EXPECT_EQ(config.attention.at(0).layers, "all");  // transformers' default is a window of 4096
  config.attention.clear();
  read_hugging_face_config(write(R"({"model_type": "mistral", "sliding_window": null})"), config);
  EXPECT_TRUE(config.attention.empty());
}

TEST_F(HuggingFace, DefaultsAreTheFamilys) {
  ModelConfig config;
  read_hugging_face_config(write(R"({"model_type": "qwen3"})"), config);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.max_position_embeddings, 32768);
  EXPECT_FALSE(config.tie_word_embeddings);
}

TEST_F(HuggingFace, KeysThatAPersonKnowsAreIgnored) {
  const std::string sizes =
      R"("vocab_size": 31, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2)";
  const std::string whole = sizes + R"(, "num_attention_heads": 2)";
  const std::string odd = write(R"({"model_type": "llama", "logit_scale": 1, )" + whole + "}");
  EXPECT_THROW(hugging_face_config(odd, {}), ConfigError);
  EXPECT_EQ(hugging_face_config(odd, {"logit_scale"}).hidden_size, 16);
  EXPECT_THROW(hugging_face_config(write(R"({"model_type": "llama", )" + sizes + "}"), {}), ConfigError);
}

// One dense and one lightning layer; `keys` come last and win.
std::string sala(const std::string& keys = "") {
  return R"({"model_type": "minicpm_sala", "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, )"
         R"("mixer_types": ["minicpm4", "lightning"], "lightning_nkv": 4, "scale_depth": 1.4142135623730951, )"
         R"("dim_model_base": 32)" +
         keys + "}";
}

TEST_F(HuggingFace, MinicpmSala) {
  ModelConfig config;
  read_hugging_face_config(write(sala()), config);
  EXPECT_EQ(config.embedding_scale, 12.0);
  EXPECT_EQ(config.head_dim, 128);
  const auto layers = attention_per_layer(config.attention, 2);
  EXPECT_FALSE(std::get<DenseConfig>(layers[0]).rope);
  EXPECT_TRUE(std::get<DenseConfig>(layers[0]).output_gate);
  EXPECT_EQ(std::get<LightningConfig>(layers[1]).form, "hypenet");
  EXPECT_TRUE(std::get<LightningConfig>(layers[1]).turns());
}

TEST_F(HuggingFace, MinicpmSalaWithChosenBlocks) {
  ModelConfig config;
  read_hugging_face_config(write(sala(R"(, "sparse_config": {"topk": 32, "init_blocks": 2, "use_nope": false,
      "window_size": 1024}, "attn_use_output_gate": false)")),
                           config);
  const InfllmConfig expected{
      .num_blocks = 32, .first_blocks = 2, .window = 1024, .dense_len = 8192, .rope = false};
  EXPECT_EQ(std::get<InfllmConfig>(attention_per_layer(config.attention, 2)[0]), expected);
}

TEST_F(HuggingFace, MinicpmSalaIsNeverRunAsSomethingElse) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {R"(, "sparse_config": {"topk": 0})", "`sparse_config.topk`: found 0"},
      {R"(, "sparse_config": {"topk": 64, "moba": 1})", "`sparse_config.moba`: is not understood"},
      {R"(, "sparse_config": 64)", "`sparse_config`: found 64, expected a table"},
      {R"(, "sparse_config": {"window_size": 100})",
       "window: found 100, expected a multiple of block_size = 64"},
      {R"(, "scale_depth": 1.4)", "`scale_depth`: found 1.4, expected sqrt(num_hidden_layers)"},
      {R"(, "dim_model_base": 256)", "`dim_model_base`: found 256, expected hidden_size = 32"},
      {R"(, "lightning_nkv": 2)", "`lightning_nkv`: found 2, expected num_attention_heads = 4"},
      {R"(, "lightning_head_dim": 64)", "`lightning_head_dim`: found 64, expected head_dim = 128"},
      {R"(, "lightning_scale": "d")", "`lightning_scale`"},
      {R"(, "attn_use_rope": true)", "`attn_use_rope`: found true, expected false"},
      {R"(, "use_output_gate": false)", "`use_output_gate`: found false, expected true"},
      {R"(, "attention_bias": true)", "`attention_bias`"},
      {R"(, "mixer_types": ["minicpm4", "mamba"])", "whose `mamba` is none of minicpm4, lightning-attn"},
      {R"(, "mixer_types": ["minicpm4"])", "`mixer_types`: found array, expected 2 of them"}};
  for (const auto& [keys, expected] : cases) {
    const std::string message = error(sala(keys));
    EXPECT_NE(message.find(expected), std::string::npos) << message;
  }
}

TEST_F(HuggingFace, ErrorsNameFileAndKey) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {R"({"model_type": "mamba"})", "`model_type`: found \"mamba\", expected one of llama"},
      {R"({"hidden_size": 3})", "`model_type`: found nothing"},
      {R"({"model_type": "llama", "hidden_size": -3})", "`hidden_size`: found -3"},
      {R"({"model_type": "llama", "hidden_size": 1e99})", "`hidden_size`"},
      {R"({"model_type": "llama", "hidden_size": 18446744073709551615})", "`hidden_size`"},
      {R"({"model_type": "llama", "vocab_size": [[[1]]]})", "`vocab_size`: found array"},
      {R"({"model_type": "llama", "hidden_act": "gelu"})", "`hidden_act`"},
      {R"({"model_type": "mistral", "attention_bias": true})", "`attention_bias`"},
      {R"({"model_type": "qwen2", "mlp_bias": true})", "`mlp_bias`"},
      {R"({"model_type": "llama", "logit_scale": 0.5})", "`logit_scale`: is not understood"},
      {R"({"model_type": "llama", "rope_scaling": {"type": "linear"}})", "`rope_scaling.factor`"},
      {R"({"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2, "alpha": 1}})",
       "`rope_scaling.alpha`: is not understood"},
      {R"({"model_type": "llama", "rope_scaling": {"rope_type": "llama3", "factor": 8}})", "low_freq_factor"},
      {R"({"model_type": "llama", "partial_rotary_factor": 0.5})", "`partial_rotary_factor`"},
      {R"({"model_type": "llama", "quantization_config": {}})", "`quantization_config`: is not understood"},
      {R"({"model_type": "qwen3", "num_hidden_layers": 2, "layer_types": ["full_attention"]})",
       "`layer_types`: found array, expected 2 of them"},
      {R"({"model_type": "qwen3", "num_hidden_layers": 1, "layer_types": ["recurrent"]})", "`recurrent`"},
      {R"({"model_type": "qwen3", "num_hidden_layers": 1, "layer_types": ["sliding_attention"]})",
       "`use_sliding_window`"},
      {R"({"model_type": "minimax", "num_local_experts": 8})", "`num_local_experts`: found 8, expected 1"},
      {R"({"model_type": "llama", "rope_scaling": {"type": "su"}})", "`rope_scaling.type`: found \"su\""},
      {R"({"model_type": "llama", "rope_scaling": 3})", "`rope_scaling`: found 3, expected a table"},
      {R"([1, 2])", "expected a JSON object"},
      {"{\"model_type\": \"l\x01\nlama\"", "is not JSON"},
  };
  for (const auto& [json, expected] : cases) {
    const std::string message = error(json);
    EXPECT_NE(message.find(expected), std::string::npos) << message;
    EXPECT_NE(message.find("config.json"), std::string::npos) << message;
    EXPECT_LE(message.size(), 1000u);
    for (const char c : message) EXPECT_GE(static_cast<unsigned char>(c), 0x20);
  }
  try {
    parse("config = '/nowhere/config.json'\n");
    FAIL() << "a file that does not exist was read";
  } catch (const ConfigError& failure) {
    EXPECT_NE(std::string(failure.what()).find("run.toml:1"), std::string::npos) << failure.what();
  }
}

}  // namespace
}  // namespace longreach
