// Broken, foreign and hostile tokenizer files: one DataError in one line that names the file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "core/temporary_folder.h"
#include "data/tokenizers/tokenizer.h"
#include "tests/data/tokenizers/tokenizer_cases.h"

namespace longreach::data {
namespace {

using testing::HasSubstr;
const std::string kFiles = LONGREACH_SOURCE_DIR "/tests/data/files";

std::string read(const std::string& path) {
  std::stringstream content;
  content << std::ifstream(path, std::ios::binary).rdbuf();
  return content.str();
}

class BadTokenizer : public testing::Test {
 protected:
  // The message of loading a file with this content; empty when it loads.
  std::string error_of(const std::string& name, const std::string& content) {
    const std::string path = folder_.path(name);
    std::ofstream(path, std::ios::binary) << content;
    try {
      load_tokenizer(path);
    } catch (const DataError& error) {
      const std::string message = error.what();
      EXPECT_THAT(message, HasSubstr(name));
      EXPECT_EQ(message, one_line(message));
      return message;
    }
    return {};
  }

  // A tokenizer.json with this vocabulary, merges and pre-tokenizer.
  std::string json_error(const std::string& vocab, const std::string& merges = "[]",
                         const std::string& splitter = R"({"type": "ByteLevel"})",
                         const std::string& more = "") {
    return error_of("t.json", R"({"model": {"type": "BPE", "vocab": )" + vocab + R"(, "merges": )" + merges +
                                  R"(}, "pre_tokenizer": )" + splitter + more + "}");
  }

  const TemporaryFolder folder_;
};

TEST_F(BadTokenizer, SmallestGoodFileLoads) {
  const std::string splitter = R"({"type": "Digits"}, "decoder": {"type": "Fuse"})";
  EXPECT_EQ(json_error(R"({"a": 0, "b": 1, "ab": 2})", R"(["a b"])", splitter), "");
}

// Text of the bytes that are missing would vanish without a word.
TEST_F(BadTokenizer, AByteLevelVocabularyNeedsItsBytes) {
  EXPECT_THAT(json_error(R"({"a": 0, "b": 1, "ab": 2})", R"(["a b"])"),
              HasSubstr("no token for 241 of the bytes (the first is <0x00>)"));
}

TEST_F(BadTokenizer, NormalizersThatMultiplyATextAreStopped) {
  std::string steps;
  for (int i = 0; i < 40; ++i)
    steps += std::string(i == 0 ? "" : ", ") +
             R"({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaa"})";
  for (const std::string& list :
       {steps, std::string(R"({"type": "Replace", "pattern": {"Regex": "a"}, "content": ")") +
                   std::string(3 << 20, 'a') + "\"}"}) {
    const std::string splitter = R"({"type": "Digits"}, "decoder": {"type": "Fuse"}, "normalizer": )"
                                 R"({"type": "Sequence", "normalizers": [)" +
                                 list + "]}";
    ASSERT_EQ(json_error(R"({"a": 0})", "[]", splitter), "");
    const auto tokenizer = load_tokenizer(folder_.path("t.json"));
    try {
      tokenizer->encode("a");
      ADD_FAILURE() << "no error";
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), HasSubstr("the normalizer makes more than"));
    }
  }
}

TEST_F(BadTokenizer, UnknownKindsAreNamed) {
  EXPECT_THAT(error_of("t.json", R"({"model": {"type": "WordPiece", "vocab": {}}})"), HasSubstr("WordPiece"));
  EXPECT_THAT(error_of("t.json", R"({"model": {"type": "Unigram", "vocab": []}})"), HasSubstr("Unigram"));
  EXPECT_THAT(json_error(R"({"a": 0})", "[]", R"({"type": "BertPreTokenizer"})"),
              HasSubstr("BertPreTokenizer"));
  EXPECT_THAT(
      json_error(R"({"a": 0})", "[]", R"({"type": "ByteLevel"}, "normalizer": {"type": "Lowercase"})"),
      HasSubstr("Lowercase"));
  const std::string lookbehind =
      R"x({"type": "Split", "pattern": {"Regex": "a(?<=b)"}, "behavior": "Isolated"})x";
  EXPECT_THAT(json_error(R"({"a": 0})", "[]", lookbehind), HasSubstr("not supported"));
}

TEST_F(BadTokenizer, BrokenVocabularies) {
  EXPECT_THAT(json_error(R"({"a": 2147483648})"), HasSubstr("2147483648"));
  EXPECT_THAT(json_error(R"({"a": 2147483647})"), HasSubstr("allowed are 0 to"));
  EXPECT_THAT(json_error(R"({"a": 18446744073709551615})"), HasSubstr("allowed are 0 to"));
  EXPECT_THAT(json_error(R"({"a": -1})"), HasSubstr("-1"));
  EXPECT_THAT(json_error(R"({"a": 1e300})"), HasSubstr("id"));
  EXPECT_THAT(json_error(R"({"a": "0"})"), HasSubstr("id"));
  EXPECT_THAT(json_error(R"({"a": 0, "b": 0})"), HasSubstr("same id"));
  EXPECT_THAT(json_error("{}"), HasSubstr("empty"));
  EXPECT_THAT(json_error("[]"), HasSubstr("object"));
  EXPECT_THAT(json_error(R"({"a": 0})", R"(["a b"])"), HasSubstr("merges[0]"));
  EXPECT_THAT(json_error(R"({"a": 0})", R"(["a a"])"), HasSubstr("aa"));
  EXPECT_THAT(json_error(R"({"a": 0})", R"(["a"])"), HasSubstr("merges[0]"));
  EXPECT_THAT(json_error(R"({"a": 0})", R"([[0, 1]])"), HasSubstr("merges[0]"));
  EXPECT_THAT(
      json_error(R"({"a": 0})", "[]", "null", R"(, "added_tokens": [{"content": "x", "id": 999999999}])"),
      HasSubstr("999999999"));
  EXPECT_THAT(json_error(R"({"a\u0007\n": 0, "b": 0})"), HasSubstr("same id"));
}

TEST_F(BadTokenizer, NestingAndForeignBytes) {
  EXPECT_THAT(error_of("t.json", std::string(1 << 20, '[')), HasSubstr("nested"));
  std::string objects;
  for (int i = 0; i < 200000; ++i) objects += "{\"a\":";
  EXPECT_THAT(error_of("t.json", objects), HasSubstr("nested"));
  EXPECT_THAT(error_of("t.json", ""), HasSubstr("JSON"));
  EXPECT_THAT(error_of("t.json", "[1, 2]"), HasSubstr("object"));
  EXPECT_THAT(error_of("t.json", std::string("{\"\xFF\": 1}")), HasSubstr("JSON"));
  const std::string groups = std::string(100000, '(');
  EXPECT_THAT(
      json_error(R"({"a": 0})", "[]",
                 R"({"type": "Split", "pattern": {"Regex": ")" + groups + R"("}, "behavior": "Isolated"})"),
      HasSubstr("nested"));
  EXPECT_THROW(load_tokenizer(folder_.path()), DataError);
  EXPECT_THROW(load_tokenizer(folder_.path("none.json")), DataError);
  EXPECT_THROW(load_tokenizer("/dev/null"), DataError);
}

TEST_F(BadTokenizer, BrokenModels) {
  EXPECT_NE(error_of("t.model", ""), "");
  EXPECT_NE(error_of("t.model", "plain text, no protobuf"), "");
  EXPECT_THAT(error_of("t.model", "\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F"),
              HasSubstr("longer than the file"));
  const std::string unknown("\x0A\x07\x0A\x03<u>\x18\x02", 9);
  const std::string not_a_number(
      "\x0A\x08\x0A\x01"
      "a\x15\x00\x00\xC0\x7F",
      10);
  EXPECT_EQ(error_of("t.model", unknown), "");
  EXPECT_THAT(error_of("t.model", unknown + not_a_number), HasSubstr("score"));
  EXPECT_THAT(error_of("t.model", unknown + unknown), HasSubstr("two ids"));
  EXPECT_THAT(error_of("t.model", unknown + std::string("\x12\x02\x18\x04", 4)), HasSubstr("char"));
  // A charsmap whose trie is longer than itself.
  EXPECT_THAT(error_of("t.model", unknown + std::string("\x1A\x06\x12\x04\xF0\xFF\xFF\x7F", 8)),
              HasSubstr("charsmap"));
  // A trie of units that are all ones.
  const std::string map = std::string("\x40\0\0\0", 4) + std::string(64, '\xFF') + "x";
  const std::string spec = "\x12" + std::string(1, static_cast<char>(map.size())) + map;
  EXPECT_THAT(error_of("t.model", unknown + "\x1A" + std::string(1, static_cast<char>(spec.size())) + spec),
              HasSubstr("its trie has no root"));
}

// Cut short or with bytes changed, a file loads or is refused, and what loads can be used.
TEST_F(BadTokenizer, DamagedFilesNeverCrash) {
  uint64_t state = 3;
  const auto next = [&state] {
    return state = state * 6364136223846793005u + 1442695040888963407u, state >> 33;
  };
  for (const std::string name :
       {"bpe_llama3.json", "bpe_llama2.json", "unigram_rules.model", "pairs_fallback.model"}) {
    const std::string good = read(kFiles + "/" + name);
    for (int i = 0; i < 150; ++i) {
      std::string bad = i % 3 == 0 ? good.substr(0, next() % good.size()) : good;
      for (uint64_t k = i % 3; k > 0 && !bad.empty(); --k)
        bad[next() % bad.size()] = static_cast<char>(next());
      if (i % 2 == 0 && bad.size() > 300) bad[next() % 300] = static_cast<char>(next());
      if (!error_of(name, bad).empty()) continue;
      const auto tokenizer = load_tokenizer(folder_.path(name));
      try {
        tokenizer->decode(tokenizer->encode("The river \xEF\xBC\xA1 \xE3\x80\x80 12 hello world\xFF"));
      } catch (const DataError&) {
      }
    }
  }
}

TEST_F(BadTokenizer, BytesWithoutATokenAreNotLost) {
  const std::string error = json_error(R"({"a": 0, "b": 1})");
  EXPECT_NE(error.find("no token for 241 of the bytes"), std::string::npos) << error;
}

}  // namespace
}  // namespace longreach::data
