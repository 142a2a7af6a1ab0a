// UTF-8, character classes and the regular expressions of the pre-tokenizers.
#include <gtest/gtest.h>

#include "core/error.h"
#include "data/tokenizers/pre_tokenizer.h"
#include "data/tokenizers/split_regex.h"
#include "data/tokenizers/unicode_classes.h"

namespace longreach::data {
namespace {

TEST(Unicode, DecodesWhatItWrites) {
  for (char32_t code = 0; code < kInvalidByte; code += code < 0x3000 ? 1 : 7) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string bytes = "a";
    append_utf8(bytes, code);
    const DecodedChar c = decode_char(bytes, 1);
    ASSERT_EQ(c.code, code);
    ASSERT_EQ(c.length, bytes.size() - 1);
    ASSERT_EQ(previous_char(bytes, bytes.size()), 1u);
  }
}

TEST(Unicode, InvalidBytesStandAlone) {
  for (const std::string bytes :
       {"\x80", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xF5", "\xE2\x82"}) {
    const DecodedChar c = decode_char(bytes, 0);
    EXPECT_EQ(c.length, 1u);
    EXPECT_EQ(c.code, kInvalidByte + static_cast<unsigned char>(bytes[0]));
  }
}

// Walking back meets the same borders as walking forward, whatever the bytes.
TEST(Unicode, BordersAreTheSameBothWays) {
  uint64_t state = 5;
  for (int i = 0; i < 2000; ++i) {
    std::string bytes;
    const char kinds[] = "\x41\x80\xBF\xC3\xE2\xF0\x9F\xED";
    for (int k = 0; k < 12; ++k)
      bytes += kinds[(state = state * 6364136223846793005u + 1442695040888963407u) >> 61];
    std::vector<size_t> forward, back;
    for (size_t at = 0; at < bytes.size(); at += decode_char(bytes, at).length) forward.push_back(at);
    for (size_t end = bytes.size(); end > 0; end = back.back()) back.push_back(previous_char(bytes, end));
    EXPECT_EQ(forward, std::vector<size_t>(back.rbegin(), back.rend()));
  }
}

TEST(Unicode, Classes) {
  EXPECT_EQ(char_class(U'a'), CharClass::letter);
  EXPECT_EQ(char_class(U'\u00E9'), CharClass::letter);
  EXPECT_EQ(char_class(U'\u4E2D'), CharClass::letter);
  EXPECT_EQ(char_class(U'\U0001D400'), CharClass::letter);
  EXPECT_EQ(char_class(U'\u0301'), CharClass::mark);
  EXPECT_EQ(char_class(U'\u0663'), CharClass::number);
  EXPECT_EQ(char_class(U'\u00BD'), CharClass::number);
  EXPECT_EQ(char_class(U'\u2167'), CharClass::number);
  EXPECT_EQ(char_class(U'!'), CharClass::punctuation);
  EXPECT_EQ(char_class(U'$'), CharClass::symbol);
  EXPECT_EQ(char_class(U'\U0001F600'), CharClass::symbol);
  EXPECT_EQ(char_class(U'\u3000'), CharClass::separator);
  EXPECT_EQ(char_class(U'\n'), CharClass::other);
  EXPECT_EQ(char_class(U'\U0010FFFF'), CharClass::other);
  EXPECT_EQ(char_class(kInvalidByte + 0xFF), CharClass::other);
}

TEST(Unicode, SpacesAreTheWhiteSpaceProperty) {
  int count = 0;
  for (char32_t code = 0; code < kInvalidByte; ++code) count += is_space(code);
  EXPECT_EQ(count, 25);
  for (const char32_t code :
       {0x9, 0xD, 0x20, 0x85, 0xA0, 0x1680, 0x2000, 0x200A, 0x2028, 0x202F, 0x205F, 0x3000})
    EXPECT_TRUE(is_space(code)) << static_cast<uint32_t>(code);
  for (const char32_t code : {0x1C, 0x200B, 0x180E, 0xFEFF}) EXPECT_FALSE(is_space(code));
}

std::vector<std::string> words(const std::string& pattern, const std::string& text) {
  PreTokenizer splitter;
  SplitStage stage;
  stage.regex.emplace(pattern);
  splitter.add(std::move(stage));
  std::vector<std::string> out;
  splitter.split(text, PreTokenizer::Place::start, [&](std::string_view word) { out.emplace_back(word); });
  return out;
}

TEST(SplitRegex, Matches) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(words(kGpt2Pattern, "it's  a 12x\n\n y"),
            (Words{"it", "'s", " ", " a", " 12", "x", "\n\n", " y"}));
  EXPECT_EQ(words(R"(\p{N}{1,3})", "1234567x8"), (Words{"123", "456", "7", "x", "8"}));
  EXPECT_EQ(words("(?:ab|c){1,2}d", "ababdcdabcdd"), (Words{"ababd", "cd", "abcd", "d"}));
  EXPECT_EQ(words("a*+a|b", "aaab"), (Words{"aaa", "b"}));
  EXPECT_EQ(words("(?i:'s)", "x'Sx'\u017Fx"), (Words{"x", "'S", "x", "'\u017F", "x"}));
  EXPECT_EQ(words("[^a-c\\]]+", "abx\\]y"), (Words{"ab", "x\\", "]", "y"}));
  EXPECT_EQ(words("x(?=y)", "xyxz"), (Words{"x", "yxz"}));
  EXPECT_EQ(words("\\P{L}", "a1b"), (Words{"a", "1", "b"}));
}

TEST(SplitRegex, RefusesWhatItDoesNotKnow) {
  for (const char* pattern :
       {"(a|b)+",  "a*?",        "^a",      "a$",          ".",      "\\w",   "\\d",    "\\b",
        "\\p{Lu}", "\\p{Greek}", "(?<=a)b", "[[:alpha:]]", "[a&&b]", "(",     ")",      "[a",
        "a{3,1}",  "a{1001}",    "a**",     "(?i:\u00E9)", "\\",     "[b-a]", "(?<x>a)"})
    EXPECT_THROW(SplitRegex{pattern}, DataError) << pattern;
  EXPECT_THROW(SplitRegex{std::string(100000, 'a')}, DataError);
  EXPECT_THROW(SplitRegex{std::string(1000, '(')}, DataError);
}

}  // namespace
}  // namespace longreach::data
