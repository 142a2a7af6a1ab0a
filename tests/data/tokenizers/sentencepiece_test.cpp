// SentencePiece models: round trips, normalization, ends. Ids are compared with the library's in
// tokenizer_test.cpp.
#include "data/tokenizers/sentencepiece.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/temporary_folder.h"
#include "tests/data/tokenizers/tokenizer_cases.h"
#include "tests/support/files.h"

namespace longreach::data {
namespace {

const std::string kFiles = LONGREACH_SOURCE_DIR "/tests/data/files/";

TEST(SentencePiece, ByteFallbackBringsAnyBytesBack) {
  const auto tokenizer = load_sentencepiece(kFiles + "unigram_fallback.model");
  uint64_t state = 11;
  for (int i = 0; i < 300; ++i) {
    // U+2581 stands for the space and would come back as one; random bytes do not spell it.
    const std::string bytes = "x" + test::random_bytes(state, 60);
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(bytes)), bytes);
  }
}

// A model that also removes U+0001: normalizer_spec.precompiled_charsmap with that rule alone, put behind the
// file, as protobuf joins messages.
std::string with_a_rule_that_removes(const std::string& model) {
  using namespace std::string_literals;
  const std::string trie =
      "\x00\x00\x00\x00"s   // the root; its children begin at unit 0
      "\x01\x09\x00\x00"s   // unit 1: by byte 1, holds a value, which lies at unit 1 ^ 2
      "\x00\x00\x00\x00"s   // nothing
      "\x00\x00\x00\x80"s;  // the value: text 0 of what follows, the empty one
  const std::string charsmap = "\x10\x00\x00\x00"s + trie + "\x00"s;
  const std::string spec = "\x12"s + static_cast<char>(charsmap.size()) + charsmap;
  return model + "\x1A"s + static_cast<char>(spec.size()) + spec;
}

// U+2581, written as bytes of which each is no UTF-8 where it stands, is no space.
TEST(SentencePiece, WhatARuleRemovesJoinsNoInvalidBytes) {
  for (const char* name : {"unigram_fallback.model", "pairs_fallback.model"}) {
    SCOPED_TRACE(name);
    const TemporaryFolder folder;
    const std::string path = folder.path("tokenizer.model");
    longreach::test::write_file(path, with_a_rule_that_removes(longreach::test::read_text(kFiles + name)));
    const auto tokenizer = load_sentencepiece(path);
    const auto back = [&](const std::string& text) { return tokenizer->decode(tokenizer->encode(text)); };
    EXPECT_EQ(back("a\x01z"), "az");
    EXPECT_EQ(back("a\xE2\x96\x01\x81z"), "a\xE2\x96\x81z");
    EXPECT_EQ(back("a\xE2\x01\x96\x01\x81"), "a\xE2\x96\x81");
    EXPECT_EQ(back("a\xE2\x96\x01\x01\x81\x01"), "a\xE2\x96\x81");
    EXPECT_EQ(back("a\xC3\x01\xA9"), "a\xC3\xA9");
  }
}

TEST(SentencePiece, InvalidBytesBecomeUnknownWithoutFallback) {
  const auto tokenizer = load_sentencepiece(kFiles + "pairs_unknown.model");
  EXPECT_EQ(tokenizer->encode("\xFF"), tokenizer->encode("\xEF\xBF\xBD"));
}

TEST(SentencePiece, RulesNormalize) {
  const auto tokenizer = load_sentencepiece(kFiles + "unigram_rules.model");
  EXPECT_EQ(tokenizer->encode("\xEF\xBC\xA1\xE3\x80\x80\xEF\xAC\x81rst\t\t"), tokenizer->encode("A first"));
  EXPECT_TRUE(tokenizer->encode(" \t \xE3\x80\x80").empty());
}

TEST(SentencePiece, EndsAndNames) {
  const auto tokenizer = load_sentencepiece(kFiles + "pairs_fallback.model");
  EXPECT_EQ(tokenizer->name(), "bpe");
  EXPECT_EQ(load_sentencepiece(kFiles + "unigram_rules.model")->name(), "unigram");
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->eos(), 2);
  EXPECT_EQ(tokenizer->decode(std::vector<Token>{1, 2}), "");
  EXPECT_EQ(tokenizer->id_of("<0x41>").has_value(), true);
  EXPECT_THROW(tokenizer->decode(std::vector<Token>{1 << 20}), DataError);
}

// Scores are counted anew beyond -100000, so the same sentence again and again is cut the same way each time.
TEST(SentencePiece, LongTextsKeepTheirWords) {
  const auto tokenizer = load_sentencepiece(kFiles + "unigram_rules.model");
  const std::string sentence = "the river ran past the mill and the boats ";
  std::string text;
  for (int i = 0; i < 20000; ++i) text += sentence;
  const auto once = tokenizer->encode(sentence), all = tokenizer->encode(text);
  EXPECT_EQ(tokenizer->decode(all) + " ", text);
  EXPECT_EQ(all.size(), once.size() * 20000);
}

}  // namespace
}  // namespace longreach::data
