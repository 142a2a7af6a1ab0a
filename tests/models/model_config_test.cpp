// Keys of [model], and errors that name the key.
#include "models/model_config.h"

#include <gtest/gtest.h>

#include "core/config.h"

namespace longreach {
namespace {

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

TEST(ModelConfig, AFileOfSizesNeedsAReader) {
  EXPECT_NE(
      parse_error("config = 'sizes.json'\n").find("run.toml:1: config: sizes.json: nothing here reads such"),
      std::string::npos);
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
