// Models of three families as the package gguf writes them: sizes, positions, tensors, tokenizers; and what
// is refused. The vectors come from tests/checkpoints/formats/vectors/gguf/make_vectors.py.
#include "checkpoints/formats/gguf/gguf_model.h"

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "checkpoints/formats/gguf/gguf_file.h"
#include "checkpoints/formats/gguf/gguf_rope.h"
#include "core/error.h"
#include "data/tokenizers/tokenizer.h"
#include "tests/support/files.h"
#include "tests/support/vectors.h"

namespace longreach::test {
namespace {

using ::testing::HasSubstr;

std::string path_of(const std::string& name) { return vector_folder("gguf") + "/" + name + ".gguf"; }

std::string contents_of(const std::string& path) {
  std::ostringstream contents;
  contents << std::ifstream(path, std::ios::binary).rdbuf();
  return contents.str();
}

std::string data_file(const std::string& name) {
  return std::string(LONGREACH_SOURCE_DIR) + "/tests/data/files/" + name;
}

// Replaces the one place where `from` stands by as many bytes.
std::string with(const std::string& contents, const std::string& from, const std::string& to) {
  EXPECT_EQ(from.size(), to.size());
  const size_t at = contents.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  std::string changed = contents;
  return changed.replace(at, from.size(), to);
}

std::string refusal(const std::string& contents, const std::set<std::string>& ignored = {}) {
  const TemporaryFolder folder;
  write_file(folder.path("model.gguf"), contents);
  try {
    open_gguf_model(folder.path("model.gguf"), ignored);
    return {};
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("model.gguf"));
    EXPECT_EQ(one_line(error.what()), error.what());
    return error.what();
  }
}

// Every tensor is the one that Hugging Face has.
void expect_tensors(const std::string& name) {
  const ForeignModel model = open_gguf_model(path_of(name));
  const GgufFile expected(path_of(name + "_here"));
  for (const std::string& tensor : expected.names()) {
    ASSERT_TRUE(model.tensors->contains(tensor)) << tensor;
    EXPECT_EQ(model.tensors->shape(tensor), expected.shape(tensor)) << tensor;
    EXPECT_TRUE(at::equal(model.tensors->tensor(tensor), expected.tensor(tensor))) << tensor;
    const int64_t n = expected.tensor(tensor).numel();
    EXPECT_TRUE(at::equal(model.tensors->run(tensor, 3, n - 4), expected.run(tensor, 3, n - 4))) << tensor;
  }
  EXPECT_EQ(model.tensors->names().size(), expected.names().size() + 1);
  EXPECT_TRUE(model.tensors->contains("model.embed_tokens.weight"));
}

std::unique_ptr<data::Tokenizer> load(const std::map<std::string, std::string>& files) {
  const TemporaryFolder folder;
  for (const auto& [name, contents] : files) folder.write(name, contents);
  return data::load_tokenizer(folder.path());
}

TEST(GgufModel, Llama) {
  const ForeignModel model = open_gguf_model(path_of("llama"));
  EXPECT_EQ(model.format, "GGUF, llama");
  const ModelConfig& c = model.config;
  EXPECT_EQ(c.hidden_size, 32);
  EXPECT_EQ(c.num_hidden_layers, 2);
  EXPECT_EQ(c.num_attention_heads, 2);
  EXPECT_EQ(c.num_key_value_heads, 1);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.intermediate_size, 64);
  EXPECT_EQ(c.max_position_embeddings, 64);
  EXPECT_EQ(c.rms_norm_eps, 1e-5);
  EXPECT_TRUE(c.tie_word_embeddings);
  EXPECT_FALSE(c.attention_bias || c.attention_output_bias || c.mlp_bias || c.qk_norm);
  EXPECT_EQ(c.rope.rope_type, "llama3");
  EXPECT_EQ(c.rope.factor, 8.0);
  EXPECT_EQ(c.rope.original_max_position_embeddings, 512);
  EXPECT_EQ(c.rope.low_freq_factor, 1.0);
  EXPECT_EQ(c.rope.high_freq_factor, 4.0);
  expect_tensors("llama");
}

TEST(GgufModel, Qwen2) {
  const ModelConfig c = open_gguf_model(path_of("qwen2")).config;
  EXPECT_TRUE(c.attention_bias);
  EXPECT_FALSE(c.tie_word_embeddings || c.attention_output_bias || c.mlp_bias || c.qk_norm);
  EXPECT_EQ(c.rope.theta, 1e6);
  EXPECT_EQ(c.rope.rope_type, "yarn");
  EXPECT_EQ(c.rope.factor, 4.0);
  EXPECT_EQ(c.rope.original_max_position_embeddings, 16);
  EXPECT_EQ(c.rope.attention_factor, 0.0);
  EXPECT_EQ(c.vocab_size, 40);
  EXPECT_TRUE(open_gguf_model(path_of("qwen2")).tokenizer.empty());
  expect_tensors("qwen2");
}

TEST(GgufModel, Qwen3) {
  const ModelConfig c = open_gguf_model(path_of("qwen3")).config;
  EXPECT_TRUE(c.qk_norm && c.tie_word_embeddings);
  EXPECT_FALSE(c.attention_bias);
  EXPECT_EQ(c.head_dim, 8);
  EXPECT_EQ(c.hidden_size, 16);
  EXPECT_EQ(c.num_attention_heads, 4);
  EXPECT_EQ(c.rope.rope_type, "linear");
  EXPECT_EQ(c.rope.factor, 2.0);
  expect_tensors("qwen3");
}

TEST(GgufModel, TheTokenizersInsideGiveTheIdsOfTheirLibraries) {
  const auto cases = nlohmann::json::parse(contents_of(data_file("tokenizer_cases.json")));
  // A GGUF file does not say that a token takes white space with it or stands for a whole word.
  const auto says_less = [](const std::string& text) {
    return text.find("zzz") != text.npos || text.find("Ab") != text.npos || text.find("<pad>") != text.npos;
  };
  for (const auto& [file, source] :
       {std::pair{"llama", "bpe_smollm.json"}, {"qwen3", "pairs_fallback.model"}}) {
    const auto tokenizer = load(open_gguf_model(path_of(file)).tokenizer);
    int compared = 0;
    for (const auto& item : cases.at(source)) {
      const auto text = item["text"].get<std::string>();
      if (says_less(text)) continue;
      EXPECT_EQ(tokenizer->encode(text), item["ids"].get<std::vector<data::Token>>()) << item["text"];
      ++compared;
    }
    EXPECT_GT(compared, 30);
    EXPECT_TRUE(tokenizer->eos().has_value());
  }
}

TEST(GgufModel, TheTokenizersOtherFiles) {
  const auto files = open_gguf_model(path_of("llama")).tokenizer;
  const auto config = nlohmann::json::parse(files.at("tokenizer_config.json"));
  EXPECT_EQ(config.at("bos_token"), "<|im_start|>");
  EXPECT_EQ(config.at("eos_token"), "<|im_end|>");
  EXPECT_EQ(config.at("add_bos_token"), false);
  EXPECT_EQ(config.at("chat_template"), "{% for m in messages %}{{ m.content }}{% endfor %}");
  const auto generation = nlohmann::json::parse(files.at("generation_config.json"));
  EXPECT_TRUE(generation.at("eos_token_id").is_number_integer());
  EXPECT_EQ(nlohmann::json::parse(open_gguf_model(path_of("qwen3")).tokenizer.at("tokenizer_config.json"))
                .at("add_bos_token"),
            true);
}

TEST(GgufModel, WhatIsNotUnderstoodIsNamed) {
  const std::string llama = contents_of(path_of("llama"));
  ASSERT_EQ(refusal(llama), "");
  const auto changed = [&](const std::string& from, const std::string& to) {
    return refusal(with(llama, from, to));
  };
  EXPECT_THAT(changed("general.architecture\x08", "general.architectur_\x08"),
              HasSubstr("general.architecture"));
  EXPECT_THAT(changed(std::string("\x05\0\0\0\0\0\0\0llama", 13), std::string("\x05\0\0\0\0\0\0\0llamb", 13)),
              HasSubstr("did you mean `llama`?"));
  EXPECT_THAT(changed("llama.block_count", "llama.block_cound"), HasSubstr("`llama.block_count`"));
  EXPECT_THAT(changed("llama.vocab_size", "llama.vocab_sizf"), HasSubstr("`llama.vocab_sizf`: a key"));
  EXPECT_EQ(refusal(with(llama, "llama.vocab_size", "llama.vocab_sizf"), {"llama.vocab_sizf"}), "");
  EXPECT_THAT(changed("blk.1.ffn_up.weight", "blk.1.ffn_uq.weight"),
              HasSubstr("`blk.1.ffn_up.weight`: is missing"));
  EXPECT_THAT(changed("blk.1.ffn_up.weight", "blk.9.ffn_up.weight"),
              HasSubstr("`blk.1.ffn_up.weight`: is missing"));
  EXPECT_THAT(changed("rope_freqs.weight", "rope_freqt.weight"), HasSubstr("`rope_freqt.weight`: no tensor"));
  EXPECT_THAT(changed("smollm", "smolln"), HasSubstr("`tokenizer.ggml.pre`: found \"smolln\""));
  EXPECT_THAT(changed("tokenizer.ggml.merges", "tokenizer.ggml.mergez"),
              HasSubstr("`tokenizer.ggml.mergez`: a key"));
  EXPECT_THAT(changed("gpt2", "bert"), HasSubstr("`tokenizer.ggml.model`: found \"bert\""));
  EXPECT_EQ(refusal(with(llama, "gpt2", "bert"), {"tokenizer.ggml.model"}), "");
  EXPECT_THAT(changed(std::string("rope.dimension_count\x04\0\0\0\x10", 25),
                      std::string("rope.dimension_count\x04\0\0\0\x08", 25)),
              HasSubstr("`llama.rope.dimension_count`: found 8, expected 16"));
  EXPECT_THAT(changed(std::string("llama.feed_forward_length\x04\0\0\0\x40", 30),
                      std::string("llama.feed_forward_length\x04\0\0\0\x41", 30)),
              HasSubstr("`blk.0.ffn_gate.weight`: has the shape [64, 32], the sizes give [65, 32]"));
}

// Divisors of pairs as float32.
std::vector<float> divisors_of(const RopeConfig& rope, int64_t head_dim) {
  const std::vector<double> exact = rope_divisors(rope, head_dim, 1 << 20);
  return {exact.begin(), exact.end()};
}

TEST(GgufModel, Llama3sScalingIsFoundFromItsDivisors) {
  for (const int64_t head_dim : {8, 16, 64, 128})
    for (const double theta : {1e4, 5e5})
      for (const int64_t length : {64, 1000, 8192, 100000})
        for (const auto& [low, high] : {std::pair{1.0, 4.0}, {1.0, 8.0}, {2.0, 3.0}}) {
          const RopeConfig wanted{.theta = theta,
                                  .rope_type = "llama3",
                                  .factor = 8.0,
                                  .original_max_position_embeddings = length,
                                  .low_freq_factor = low,
                                  .high_freq_factor = high};
          const std::vector<float> divisors = divisors_of(wanted, head_dim);
          RopeConfig found{.theta = theta};
          const bool known = find_llama3(divisors, head_dim, found);
          ASSERT_TRUE(known) << head_dim << " " << theta << " " << length << " " << high;
          const std::vector<float> again = divisors_of(found, head_dim);
          for (size_t i = 0; i < divisors.size(); ++i)
            EXPECT_NEAR(again[i], divisors[i], 1e-5 * divisors[i])
                << head_dim << " " << theta << " " << length;
        }
  RopeConfig rope;
  EXPECT_FALSE(find_llama3({1, 2, 1, 2}, 8, rope));
  EXPECT_FALSE(find_llama3({0.5, 1, 1, 1}, 8, rope));
  EXPECT_FALSE(find_llama3({1, 1, 1, NAN}, 8, rope));
  EXPECT_EQ(rope.rope_type, "default");
  EXPECT_TRUE(find_llama3({1, 1, 1, 1}, 8, rope));
  EXPECT_EQ(rope.rope_type, "default");
}

// Every bit of the header of a whole model: an error that names the file, or a model.
TEST(GgufModel, DamagedHeadersAreErrorsOrModels) {
  const std::string whole = contents_of(path_of("qwen2"));
  const TemporaryFolder folder;
  int refused = 0;
  constexpr size_t kHeader = 1200, kStep = 11;  // bits
  for (size_t bit = 0; bit < 8 * kHeader; bit += kStep) {
    std::string damaged = whole;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    write_file(folder.path("model.gguf"), damaged);
    try {
      open_gguf_model(folder.path("model.gguf"));
    } catch (const UserError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 500);
}

}  // namespace
}  // namespace longreach::test
