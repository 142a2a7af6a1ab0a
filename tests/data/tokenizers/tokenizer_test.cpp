// Bytes and tokenizer.json: ids of the original library, exact round trips, special tokens, threads.
#include "data/tokenizers/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/error.h"
#include "core/temporary_folder.h"
#include "data/tokenizers/tokenizer_ends.h"
#include "tests/data/tokenizers/tokenizer_cases.h"
#include "tests/support/errors.h"
#include "tests/support/files.h"

namespace longreach::data {
namespace {

const std::string kFiles = LONGREACH_SOURCE_DIR "/tests/data/files";

TEST(Tokenizer, FilesEncodeAndDecodeAsTheirLibraries) { test::expect_cases(kFiles); }

TEST(Tokenizer, BytesAreTheirOwnIds) {
  const auto tokenizer = load_tokenizer("bytes");
  EXPECT_EQ(tokenizer->vocab_size(), 257);
  EXPECT_EQ(tokenizer->encode(std::string("A\0\xFF", 3)), (std::vector<Token>{65, 0, 255}));
  EXPECT_EQ(tokenizer->eos(), 256);
  EXPECT_EQ(tokenizer->id_of("<|endoftext|>"), 256);
  EXPECT_EQ(tokenizer->encode("<|endoftext|>").size(), 13u);
  EXPECT_THROW(tokenizer->decode(std::vector<Token>{257}), DataError);
  EXPECT_THROW(tokenizer->decode(std::vector<Token>{-1}), DataError);
}

TEST(Tokenizer, AnyBytesComeBack) {
  uint64_t state = 7;
  for (const std::string spec :
       {"bytes", "bpe_gpt2.json", "bpe_llama3.json", "bpe_qwen2.json", "bpe_smollm.json"}) {
    const auto tokenizer = load_tokenizer(spec == "bytes" ? spec : kFiles + "/" + spec);
    for (int i = 0; i < 300; ++i) {
      const std::string bytes = test::random_bytes(state, 80);
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(bytes)), bytes) << spec;
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(bytes, false)), bytes) << spec;
    }
    std::string broken = "\xED\xA0\x80 \xC0\x80 caf\xE9 \xF0\x9F\x98 \xF4\x90\x80\x80 end\xE2\x82";
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(broken)), broken) << spec;
  }
}

TEST(Tokenizer, SpecialTokensAreTextWhenNotAskedFor) {
  const auto tokenizer = load_tokenizer(kFiles + "/bpe_smollm.json");
  const std::string text = "a<|im_end|>b";
  EXPECT_EQ(tokenizer->encode(text)[1], tokenizer->id_of("<|im_end|>"));
  const auto plain = tokenizer->encode(text, false);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), *tokenizer->id_of("<|im_end|>")), 0);
  EXPECT_EQ(tokenizer->decode(plain), text);
}

TEST(Tokenizer, EndsComeFromTheConfigOrTheUsualNames) {
  const TemporaryFolder folder;
  std::filesystem::copy_file(kFiles + "/bpe_smollm.json", folder.path("tokenizer.json"));
  EXPECT_EQ(load_tokenizer(folder.path())->eos(), load_tokenizer(folder.path())->id_of("<|endoftext|>"));
  folder.write("tokenizer_config.json",
               R"({"bos_token": null, "eos_token": {"content": "<|im_end|>", "special": true}})");
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_FALSE(tokenizer->bos().has_value());
  EXPECT_EQ(tokenizer->eos(), tokenizer->id_of("<|im_end|>"));
}

TEST(Tokenizer, ItsFilesSayWhetherTextsBeginWithBos) {
  const TemporaryFolder folder;
  const auto bos = [](const std::string& spec) { return bos_before_texts(*load_tokenizer(spec), spec); };
  EXPECT_EQ(bos("bytes"), std::nullopt);
  EXPECT_EQ(bos(kFiles + "/bpe_smollm.json"), std::nullopt);
  EXPECT_EQ(bos(kFiles + "/unigram_rules.model"), load_tokenizer(kFiles + "/unigram_rules.model")->bos());
  auto json = nlohmann::json::parse(longreach::test::read_text(kFiles + "/bpe_smollm.json"));
  json["post_processor"] = {{"type", "TemplateProcessing"},
                            {"single",
                             {{{"SpecialToken", {{"id", "<|im_start|>"}, {"type_id", 0}}}},
                              {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}}};
  folder.write("tokenizer.json", json.dump());
  const auto start = load_tokenizer(folder.path())->id_of("<|im_start|>");
  EXPECT_EQ(bos(folder.path()), start);
  EXPECT_EQ(bos(folder.path("tokenizer.json")), start);
  folder.write("tokenizer_config.json", R"({"bos_token": "<|im_start|>", "add_bos_token": false})");
  EXPECT_EQ(bos(folder.path()), std::nullopt);
  folder.write("tokenizer_config.json", R"({"bos_token": "<|im_start|>", "add_bos_token": "yes"})");
  longreach::test::expect_error<DataError>("the tokenizer's files: ", [&] { bos(folder.path()); });
}

TEST(Tokenizer, FingerprintsTellVocabulariesApart) {
  std::vector<std::string> prints;
  for (const char* file :
       {"bpe_gpt2.json", "bpe_llama3.json", "bpe_smollm.json", "unigram_rules.model", "pairs_unknown.model"})
    prints.push_back(load_tokenizer(kFiles + "/" + file)->fingerprint());
  prints.push_back(load_tokenizer("bytes")->fingerprint());
  for (const std::string& print : prints) {
    EXPECT_EQ(print.size(), 16u);
    EXPECT_EQ(std::count(prints.begin(), prints.end(), print), 1) << print;
  }
  EXPECT_EQ(prints[0], load_tokenizer(kFiles + "/bpe_gpt2.json")->fingerprint());
}

// bpe_llama2.json with a rule that removes U+0001, before or behind its own rules.
std::string with_a_rule_that_removes(const char* pattern_kind, bool first) {
  auto root = nlohmann::json::parse(longreach::test::read_text(kFiles + "/bpe_llama2.json"));
  auto& rules = root["normalizer"]["normalizers"];
  const nlohmann::json rule = {{"type", "Replace"}, {"pattern", {{pattern_kind, "\x01"}}}, {"content", ""}};
  rules.insert(first ? rules.begin() : rules.end(), rule);
  return root.dump();
}

TEST(Tokenizer, WhatARuleRemovesJoinsNoInvalidBytes) {
  for (const char* kind : {"String", "Regex"})
    for (const bool first : {true, false}) {
      SCOPED_TRACE(std::string(kind) + (first ? ", first" : ", last"));
      const TemporaryFolder folder;
      const std::string path = folder.path("tokenizer.json");
      longreach::test::write_file(path, with_a_rule_that_removes(kind, first));
      const auto tokenizer = load_tokenizer(path);
      const auto back = [&](const std::string& text) { return tokenizer->decode(tokenizer->encode(text)); };
      EXPECT_EQ(back("a\x01z"), "az");
      EXPECT_EQ(tokenizer->encode("a \x01z"), tokenizer->encode("a z"));
      EXPECT_EQ(back("a\xE2\x96\x01\x81z"), "a\xE2\x96\x81z");
      EXPECT_EQ(back("a\xE2\x01\x96\x01\x81"), "a\xE2\x96\x81");
      EXPECT_EQ(back("\xE2\x01\x01\x96\x81 z"), "\xE2\x96\x81 z");
      EXPECT_EQ(back("\xE2\x96\x01\x81\x01\xE2\x01\x96\x81"), "\xE2\x96\x81\xE2\x96\x81");
    }
}

TEST(Tokenizer, EncodesFromSeveralThreads) {
  const auto tokenizer = load_tokenizer(kFiles + "/bpe_llama3.json");
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "the river ran past word" + std::to_string(i * i) + "\n";
  const auto expected = tokenizer->encode(text);
  std::vector<std::vector<Token>> results(4);
  std::vector<std::jthread> threads;
  for (auto& result : results) threads.emplace_back([&] { result = tokenizer->encode(text); });
  threads.clear();
  for (const auto& result : results) EXPECT_EQ(result, expected);
}

TEST(Tokenizer, LongWordsTakeLinearithmicTime) {
  const auto tokenizer = load_tokenizer(kFiles + "/bpe_gpt2.json");
  const std::string word(1 << 20, 'e'), spaces(1 << 20, ' ');
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(word)), word);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(spaces + "x")), spaces + "x");
}

}  // namespace
}  // namespace longreach::data
