// SentencePiece models: round trips, normalization, ends. Ids are compared with the library's in
// tokenizer_test.cpp.
#include "data/tokenizers/sentencepiece.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/data/tokenizers/tokenizer_cases.h"

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
