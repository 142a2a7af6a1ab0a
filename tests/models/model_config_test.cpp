// Keys of [model], Hugging Face's config.json, and errors that name the key.
#include "models/model_config.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

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
  ModelConfig config;
  ConfigDocument::from_text(toml, "run.toml").read(fields_of(config));
  return config;
}

std::string parse_error(const std::string& toml, int64_t vocab = 100) {
  try {
    parse(toml).resolve(vocab);
  } catch (const ConfigError& failure) {
    return failure.what();
  }
  return "";
}

const std::string kSmolLm2 =
    R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576,
  "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64,
  "hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 100000.0, "max_position_embeddings": 8192, "vocab_size": 49152,
  "tie_word_embeddings": true, "attention_bias": false, "mlp_bias": false, "rope_scaling": null})";

TEST(ModelConfig, FillsWhatDependsOnOtherKeys) {
  ModelConfig config = parse("hidden_size = 200\nnum_attention_heads = 5\n");
  config.resolve(300);
  EXPECT_EQ(config.vocab_size, 300);
  EXPECT_EQ(config.head_dim, 40);
  EXPECT_EQ(config.num_key_value_heads, 5);
  EXPECT_EQ(config.intermediate_size, 544);  // 533.3 up to a multiple of 32
}

TEST(ModelConfig, ReadsLayersAndScalings) {
  const ModelConfig config = parse(
      "rope_theta = 5e5\n[rope_scaling]\nrope_type = 'llama3'\nfactor = 8.0\n[[attention]]\nkind = "
      "'sliding'\nlayers = '0-2'\n"
      "window = 64\n[[attention]]\nkind = 'lightning'\nlayers = '3'\n");
  EXPECT_EQ(config.rope.theta, 5e5);
  EXPECT_EQ(config.rope.rope_type, "llama3");
  ASSERT_EQ(config.attention.size(), 2u);
  EXPECT_EQ(std::get<SlidingConfig>(config.attention[0].config).window, 64);
  EXPECT_EQ(config.attention[1].kind(), "lightning");
}

TEST(ModelConfig, PrintsWhatItReads) {
  ModelConfig config = parse(
      "hidden_size = 64\n[[attention]]\nkind = 'sliding'\nlayers = '0,2-3'\nsinks = 4\n[[attention]]\nkind = "
      "'lightning'\nlayers = '1'\nform = 'minimax'\n");
  config.resolve(100);
  ModelConfig again = parse(to_toml(fields_of(config)));
  EXPECT_EQ(again.head_dim, 16);
  ASSERT_EQ(again.attention.size(), 2u);
  EXPECT_EQ(std::get<SlidingConfig>(again.attention[0].config).sinks, 4);
  EXPECT_EQ(std::get<LightningConfig>(again.attention[1].config).form, "minimax");
  EXPECT_EQ(to_toml(fields_of(again)), to_toml(fields_of(config)));
}

TEST(ModelConfig, ErrorsNameTheKey) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"hidden_size = 100\nnum_attention_heads = 3\n", "model.hidden_size = 100"},
      {"num_attention_heads = 4\nnum_key_value_heads = 3\n", "model.num_key_value_heads = 3"},
      {"hidden_size = 20\nnum_attention_heads = 4\n", "model.head_dim = 5"},
      {"hidden_size = 2048\nnum_attention_heads = 4\n", "model.head_dim = 512"},
      {"vocab_size = 50\n", "model.vocab_size = 50: the tokenizer has 100 tokens"},
      {"[[attention]]\nkind = 'dense'\nlayers = '0-1'\n", "layer 2"},
      {"[[attention]]\nkind = 'dense'\n[[attention]]\nkind = 'sliding'\nlayers = '1'\n",
       "layer 1 is served by both"},
      {"head_dim = 200\n[[attention]]\nkind = 'lightning'\nlrpe = 'on'\n", "model.head_dim = 200"},
      {"head_dim = 200\n[[attention]]\nkind = 'lightning'\nlrpe = 'on'\n",
       "model.attention: layer 0 (lightning): lrpe doubles"},
      {"[[attention]]\nkind = 'seer'\ntoken_budget = 72\n",
       "model.attention: layer 0 (seer): token_budget = 72: expected a positive multiple of block_size = 64"},
      {"num_hidden_layers = 2\n[[attention]]\nkind = 'dense'\nlayers = '0'\n[[attention]]\nkind = "
       "'s2'\nlayers = '1'\n"
       "homo_head = true\nnum_dense_heads = 1\n",
       "model.attention: layer 1 (s2): num_dense_heads: 1, expected 0 with homo_head"},
      {"[rope_scaling]\nrope_type = 'llama3'\nlow_freq_factor = 5.0\n",
       "model.rope_scaling.high_freq_factor"},
  };
  for (const auto& [toml, expected] : cases) {
    const std::string message = parse_error(toml);
    EXPECT_NE(message.find(expected), std::string::npos) << message;
  }
}

TEST(ModelConfig, ErrorsInTablesNameTheLine) {
  EXPECT_NE(
      parse_error("hidden_size = 64\n[[attention]]\nkind = 'dense'\nlayers = '0-9'\n").find("run.toml:4"),
      std::string::npos);
  EXPECT_NE(parse_error("[[attention]]\nkind = 'dense'\nlayers = '2-1'\n").find("run.toml:3"),
            std::string::npos);
  EXPECT_NE(parse_error("[[attention]]\nkind = 'dense'\nlayers = 'some'\n").find("run.toml:3"),
            std::string::npos);
  EXPECT_NE(parse_error("[[attention]]\nkind = 'lightning'\nchunk = 48\n").find("run.toml:3"),
            std::string::npos);
  EXPECT_NE(parse_error("[[attention]]\nkind = 'slidng'\n").find("sliding"), std::string::npos);
}

TEST(ModelConfig, OddHeadsNeedNoRotation) {
  EXPECT_EQ(parse_error("hidden_size = 20\nnum_attention_heads = 4\n[[attention]]\nkind = 'lightning'\n"),
            "");
  EXPECT_EQ(
      parse_error("hidden_size = 20\nnum_attention_heads = 4\n[[attention]]\nkind = 'dense'\nrope = false\n"),
      "");
}

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

TEST_F(HuggingFace, ErrorsNameFileAndKey) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {R"({"model_type": "mamba"})", "`model_type`: found \"mamba\", expected one of llama"},
      {R"({"hidden_size": 3})", "`model_type`: found nothing"},
      {R"({"model_type": "llama", "hidden_size": -3})", "`hidden_size`: found -3"},
      {R"({"model_type": "llama", "hidden_size": 1e99})", "`hidden_size`"},
      {R"({"model_type": "llama", "hidden_size": 18446744073709551615})", "`hidden_size`"},
      {R"({"model_type": "llama", "vocab_size": [[[1]]]})", "`vocab_size`: found array"},
      {R"({"model_type": "llama", "hidden_act": "gelu"})", "`hidden_act`"},
      {R"({"model_type": "llama", "attention_bias": true})", "`attention_bias`"},
      {R"({"model_type": "llama", "rope_scaling": {"type": "longrope"}})",
       "`rope_scaling.type`: found \"longrope\""},
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
  EXPECT_NE(parse_error("config = '/nowhere/config.json'\n").find("run.toml:1"), std::string::npos);
}

TEST(ModelConfig, ALayerThatTwoTablesServeNamesBoth) {
  const std::string both = parse_error(
      "num_hidden_layers = 4\n[[attention]]\nkind = \"sliding\"\nlayers = \"0-2\"\n\n"
      "[[attention]]\nkind = \"dense\"\nlayers = \"2,3\"\n");
  EXPECT_EQ(both,
            "run.toml:8: attention.1.layers: layer 2 is served by both \"0-2\" (kind = \"sliding\", "
            "run.toml:4) and "
            "\"2,3\" (kind = \"dense\", run.toml:8)");
  const std::string absent =
      parse_error("[[attention]]\nkind = \"dense\"\n[[attention]]\nkind = \"sliding\"\n");
  EXPECT_NE(absent.find("layer 0 is served by both \"all\" (kind = \"dense\", run.toml:1)"),
            std::string::npos)
      << absent;
}

TEST(ModelConfig, AMissingKindNamesTheChoices) {
  const std::string error = parse_error("[[attention]]\nlayers = \"all\"\n");
  EXPECT_NE(error.find("run.toml:1: attention.0.kind: is required"), std::string::npos) << error;
  EXPECT_NE(error.find("one of dense, sliding, lightning"), std::string::npos) << error;
}

TEST(ModelConfig, TheVocabularyIsPositiveOrTheTokenizers) {
  EXPECT_NE(parse_error("vocab_size = 0\n").find("run.toml:1: vocab_size: expected an integer from 1"),
            std::string::npos);
  EXPECT_NE(parse_error("vocab_size = -5\n").find("found -5"), std::string::npos);
  ModelConfig config = parse("");
  config.resolve(300);
  EXPECT_EQ(config.vocab_size, 300);
}

}  // namespace
}  // namespace longreach
