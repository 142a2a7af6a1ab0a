// What is written reads back as it was: tensors, sizes, positions, tokenizers; and what GGUF has no words for
// is refused. Rounding to Q8_0 is compared with the package gguf (make_vectors.py).
#include "checkpoints/formats/gguf/gguf_export.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "checkpoints/formats/gguf/gguf_file.h"
#include "checkpoints/formats/gguf/gguf_model.h"
#include "core/error.h"
#include "data/tokenizers/sentencepiece_model.h"
#include "data/tokenizers/tokenizer.h"
#include "models/transformer.h"
#include "tests/support/files.h"
#include "tests/support/small_model.h"
#include "tests/support/vectors.h"

namespace longreach::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using Files = std::map<std::string, std::string>;

NamedTensors tensors_of(const ModelConfig& config) {
  const Transformer model(config, 7);
  NamedTensors all;
  for (const auto& item : model.named_parameters()) all.emplace_back(item.key(), item.value().detach());
  return all;
}

ModelConfig resolved(ModelConfig config, int64_t vocab_size = 40) {
  config.resolve(vocab_size);
  return config;
}

// Writes and reads; every tensor but rounded ones comes back with its bits.
ForeignModel round_trip(const ModelConfig& config, const Files& tokenizer, const std::string& path,
                        const GgufOptions& options = {.type = "F32"}) {
  const NamedTensors tensors = tensors_of(config);
  write_gguf(path, config, tensors, tokenizer, options);
  ForeignModel model = open_gguf_model(path);
  EXPECT_EQ(model.tensors->names().size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor back = model.tensors->tensor(name);
    // Q8_0: half a step of largest / 127, and the step itself rounded to 11 bits.
    const double rounding = options.type == "F16" ? 1.0 / 2048 : 1.0 / 254 + 1.0 / 2048;
    const bool exact = options.type == "F32" || tensor.dim() == 1;
    const double limit = exact ? 0.0 : tensor.abs().max().item<double>() * rounding;
    EXPECT_EQ(back.sizes(), tensor.sizes()) << name;
    EXPECT_LE((back - tensor).abs().max().item<double>(), limit) << name;
  }
  return model;
}

TEST(GgufExport, Q8RoundsAsTheReference) {
  const GgufFile file(vector_folder("gguf") + "/types.gguf");
  const at::Tensor values = file.tensor("to_q8_0.f32");
  const std::string bytes = ggml_encode(ggml_q8_0(), values.const_data_ptr<float>(), values.numel());
  std::vector<float> ours(static_cast<size_t>(values.numel()));
  ggml_q8_0().dequantize(reinterpret_cast<const uint8_t*>(bytes.data()), values.numel() / 32, ours.data());
  const at::Tensor theirs = file.tensor("to_q8_0");
  EXPECT_EQ(std::memcmp(ours.data(), theirs.const_data_ptr(), theirs.nbytes()), 0);
}

TEST(GgufExport, ModelsComeBack) {
  const TemporaryFolder folder;
  int number = 0;
  const auto next = [&] { return folder.path(text("model-", ++number, ".gguf")); };
  for (const char* type : {"F32", "F16", "Q8_0"}) {
    const ModelConfig back =
        round_trip(resolved(small_model()), {}, next(), {.type = type, .name = "x"}).config;
    EXPECT_EQ(back.hidden_size, 32);
    EXPECT_EQ(back.num_key_value_heads, 2);
    EXPECT_EQ(back.rms_norm_eps, 1e-5);
    EXPECT_EQ(back.vocab_size, 40);
    EXPECT_TRUE(back.tie_word_embeddings);
  }
  ModelConfig config = small_model();
  config.tie_word_embeddings = false;
  config.head_dim = 16;
  config.attention_bias = config.attention_output_bias = config.mlp_bias = true;
  const ForeignModel biased = round_trip(resolved(config), {}, next());
  EXPECT_EQ(biased.format, "GGUF, llama");
  EXPECT_EQ(biased.config.head_dim, 16);
  EXPECT_TRUE(biased.config.attention_bias && biased.config.attention_output_bias && biased.config.mlp_bias);
  config.attention_output_bias = config.mlp_bias = false;
  EXPECT_EQ(round_trip(resolved(config), {}, next()).format, "GGUF, qwen2");
  config.attention_bias = false;
  config.qk_norm = true;
  EXPECT_EQ(round_trip(resolved(config), {}, next()).format, "GGUF, qwen3");
}

TEST(GgufExport, PositionsComeBack) {
  const TemporaryFolder folder;
  ModelConfig config = small_model();
  config.head_dim = 16;
  const auto back = [&](const RopeConfig& rope) {
    config.rope = rope;
    const std::string path = folder.path(text(rope.rope_type, rope.factor, rope.beta_fast, ".gguf"));
    return round_trip(resolved(config), {}, path).config.rope;
  };
  EXPECT_EQ(back({.theta = 12345.0}).theta, 12345.0);
  EXPECT_EQ(back({.rope_type = "linear", .factor = 3.5}).factor, 3.5);
  const RopeConfig yarn = back({.rope_type = "yarn",
                                .factor = 4.0,
                                .original_max_position_embeddings = 512,
                                .beta_fast = 16.0,
                                .beta_slow = 2.0,
                                .attention_factor = 1.5});
  EXPECT_EQ(yarn.rope_type, "yarn");
  EXPECT_EQ(yarn.original_max_position_embeddings, 512);
  EXPECT_EQ(yarn.beta_fast, 16.0);
  EXPECT_EQ(yarn.beta_slow, 2.0);
  EXPECT_NEAR(yarn.attention_factor, 1.5, 1e-6);
  EXPECT_EQ(back({.rope_type = "yarn", .factor = 8.0}).attention_factor, 0.0);
  const RopeConfig llama3 =
      back({.rope_type = "llama3", .factor = 8.0, .original_max_position_embeddings = 256});
  EXPECT_EQ(llama3.rope_type, "llama3");
  EXPECT_EQ(llama3.original_max_position_embeddings, 256);
}

std::string contents_of(const std::string& path) {
  std::ostringstream contents;
  contents << std::ifstream(path, std::ios::binary).rdbuf();
  return contents.str();
}

std::string data_file(const std::string& name) {
  return std::string(LONGREACH_SOURCE_DIR) + "/tests/data/files/" + name;
}

// Without the tokens that take white space with them or stand for whole words.
json plain_tokenizer(const std::string& name) {
  json root = json::parse(contents_of(data_file(name)));
  json kept = json::array();
  for (const json& token : root["added_tokens"])
    if (!token["lstrip"] && !token["rstrip"] && !token["single_word"]) kept.push_back(token);
  root["added_tokens"] = kept;
  return root;
}

std::unique_ptr<data::Tokenizer> load(const Files& files) {
  const TemporaryFolder folder;
  for (const auto& [name, contents] : files) folder.write(name, contents);
  return data::load_tokenizer(folder.path());
}

void expect_same_ids(const data::Tokenizer& ours, const data::Tokenizer& back, const std::string& file) {
  const auto cases = json::parse(contents_of(data_file("tokenizer_cases.json")));
  for (const json& item : cases.at(file)) {
    const auto text = item["text"].get<std::string>();
    EXPECT_EQ(back.encode(text), ours.encode(text)) << file << " on " << item["text"];
  }
  EXPECT_EQ(back.bos(), ours.bos());
  EXPECT_EQ(back.eos(), ours.eos());
}

TEST(GgufExport, ByteLevelTokenizersComeBack) {
  const TemporaryFolder folder;
  for (const auto& [file, bos] : {std::pair{"bpe_smollm.json", false},
                                  {"bpe_gpt2.json", true},
                                  {"bpe_llama3.json", true},
                                  {"bpe_qwen2.json", false},
                                  {"bpe_nfc.json", false}}) {
    const json config{{"bos_token", "<|im_start|>"},
                      {"eos_token", {{"content", "<|im_end|>"}}},
                      {"add_bos_token", bos},
                      {"chat_template", "{{ messages }}"}};
    const Files files{{"tokenizer.json", plain_tokenizer(file).dump()},
                      {"tokenizer_config.json", config.dump()}};
    const ForeignModel model =
        round_trip(resolved(small_model(), 640), files, folder.path(std::string(file) + ".gguf"));
    expect_same_ids(*load(files), *load(model.tokenizer), file);
    const json back = json::parse(model.tokenizer.at("tokenizer_config.json"));
    EXPECT_EQ(back.at("chat_template"), "{{ messages }}");
    EXPECT_EQ(back.at("add_bos_token"), bos);
    EXPECT_EQ(json::parse(model.tokenizer.at("tokenizer.json")).at("post_processor").is_null(), !bos);
  }
}

TEST(GgufExport, SentencePieceTokenizersComeBack) {
  data::SentencePieceModel model =
      data::parse_sentencepiece_model(contents_of(data_file("pairs_fallback.model")));
  model.remove_extra_whitespaces = false;
  model.charsmap.clear();
  const Files files{{"tokenizer.model", write_sentencepiece_model(model)},
                    {"tokenizer_config.json", R"({"bos_token": "<s>", "eos_token": "</s>"})"}};
  const TemporaryFolder folder;
  const int64_t count = static_cast<int64_t>(model.pieces.size());
  const ForeignModel back = round_trip(resolved(small_model(), count), files, folder.path("spm.gguf"));
  expect_same_ids(*load(files), *load(back.tokenizer), "pairs_fallback.model");
  model.remove_extra_whitespaces = true;
  EXPECT_THROW(
      round_trip(resolved(small_model(), count), {{"tokenizer.model", write_sentencepiece_model(model)}},
                 folder.path("refused.gguf")),
      ConfigError);
}

// The message of the error that writing throws.
std::string refusal(const ModelConfig& config, const Files& tokenizer = {}, NamedTensors tensors = {},
                    const GgufOptions& options = {}) {
  const TemporaryFolder folder;
  try {
    if (tensors.empty()) tensors = tensors_of(config);
    write_gguf(folder.path("out.gguf"), config, tensors, tokenizer, options);
    return {};
  } catch (const UserError& error) {
    EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << "nothing stays behind";
    return error.what();
  }
}

TEST(GgufExport, WhatGgufHasNoWordsForIsNamed) {
  const auto with = [](const auto& change) {
    ModelConfig config = small_model();
    change(config);
    return refusal(resolved(config));
  };
  using C = ModelConfig;
  EXPECT_THAT(with([](C& c) { c.mlp = "sglu"; }), HasSubstr("model.mlp = \"sglu\""));
  EXPECT_THAT(with([](C& c) { c.norm = "srmsnorm"; }), HasSubstr("model.norm"));
  EXPECT_THAT(with([](C& c) { c.embedding_scale = 2; }), HasSubstr("model.embedding_scale = 2"));
  EXPECT_THAT(with([](C& c) { c.residual.form = "minimax"; }), HasSubstr("model.residual"));
  EXPECT_THAT(with([](C& c) { c.rope = {.rope_type = "dynamic", .factor = 2}; }), HasSubstr("dynamic"));
  EXPECT_THAT(with([](C& c) {
                c.rope = {.rope_type = "longrope",
                          .original_max_position_embeddings = 32,
                          .short_factor = {1, 1, 1, 1},
                          .long_factor = {1, 1, 1, 1}};
              }),
              HasSubstr("longrope"));
  EXPECT_THAT(with([](C& c) { c.qk_norm = c.attention_bias = true; }), HasSubstr("model.qk_norm"));
  EXPECT_THAT(with([](C& c) { c.attention = {{.config = SlidingConfig{}}}; }), HasSubstr("\"sliding\""));
  EXPECT_THAT(with([](C& c) { c.attention = {{.config = DenseConfig{.rope = false}}}; }), HasSubstr("rope"));
  EXPECT_THAT(with([](C& c) { c.attention = {{.config = DenseConfig{.output_gate = true}}}; }),
              HasSubstr("output_gate"));
  EXPECT_EQ(with([](C& c) { c.attention = {{.config = DenseConfig{}}}; }), "");
}

TEST(GgufExport, TensorsThatDoNotFitAreNamed) {
  const ModelConfig config = resolved(small_model());
  NamedTensors tensors = tensors_of(config);
  const auto last = tensors.back();
  tensors.pop_back();
  EXPECT_THAT(refusal(config, {}, tensors), HasSubstr(last.first + "`: is missing"));
  tensors.push_back({last.first, last.second.repeat({2})});
  EXPECT_THAT(refusal(config, {}, tensors), HasSubstr(last.first + "`: has the shape"));
  tensors.back() = last;
  tensors.push_back({"extra.gate", last.second});
  EXPECT_THAT(refusal(config, {}, tensors), HasSubstr("`extra.gate`"));
  tensors.pop_back();
  for (auto& [name, tensor] : tensors)
    if (name == "model.layers.0.mlp.up_proj.weight") tensor = at::full_like(tensor, 1e9);
  EXPECT_THAT(refusal(config, {}, tensors), HasSubstr("up_proj.weight`: holds a value that F16 does not"));
  EXPECT_THAT(refusal(config, {}, tensors, {.type = "Q8_0"}), HasSubstr("that Q8_0 does not"));
  EXPECT_EQ(refusal(config, {}, tensors, {.type = "F32"}), "");
  EXPECT_THAT(refusal(config, {}, {}, {.type = "Q4_0"}), HasSubstr("expected F32, F16 or Q8_0"));
}

TEST(GgufExport, TokenizersThatDoNotFitAreNamed) {
  const ModelConfig config = resolved(small_model(), 640);
  const auto refused = [&](const json& root) { return refusal(config, {{"tokenizer.json", root.dump()}}); };
  json root = plain_tokenizer("bpe_smollm.json");
  EXPECT_EQ(refused(root), "");
  EXPECT_THAT(refused(json::parse(contents_of(data_file("bpe_smollm.json")))),
              HasSubstr("`zzz`: single_word = true"));
  EXPECT_THAT(refused(plain_tokenizer("bpe_merged.json")), HasSubstr("no name of GGUF"));
  EXPECT_THAT(refused(plain_tokenizer("bpe_nfkc.json")), HasSubstr("found NFKC"));
  EXPECT_THAT(refused(plain_tokenizer("bpe_llama2.json")), HasSubstr("tokenizer.json"));
  root["model"]["ignore_merges"] = true;
  EXPECT_THAT(refused(root), HasSubstr("ignore_merges = true"));
  root["model"].erase("vocab");
  EXPECT_NE(refused(root), "");
  EXPECT_THAT(
      refusal(resolved(small_model()), {{"tokenizer.json", plain_tokenizer("bpe_smollm.json").dump()}}),
      HasSubstr("the embedding has 40 rows"));
  EXPECT_THAT(refusal(config, {{"tokenizer.json", "{"}}), HasSubstr("is not JSON"));
  EXPECT_THAT(refusal(config, {{"tokenizer.model", contents_of(data_file("unigram_fallback.model"))}}),
              HasSubstr("not of type bpe"));
}

TEST(GgufExport, AFileThatIsThereStays) {
  const TemporaryFolder folder;
  folder.write("there.gguf", "mine");
  const ModelConfig config = resolved(small_model());
  EXPECT_THROW(write_gguf(folder.path("there.gguf"), config, tensors_of(config), {}), CheckpointError);
  EXPECT_EQ(contents_of(folder.path("there.gguf")), "mine");
  EXPECT_THROW(write_gguf(folder.path("no/such.gguf"), config, tensors_of(config), {}), CheckpointError);
}

}  // namespace
}  // namespace longreach::test
