// Rows of Unicode's NormalizationTest.txt by class: source; NFC; NFD; NFKC; NFKD, and what the five must
// satisfy.
#include "data/tokenizers/unicode_forms.h"

#include <gtest/gtest.h>

#include "tests/data/tokenizers/tokenizer_cases.h"

namespace longreach::data {
namespace {

struct Row {
  const char *source, *nfc, *nfd, *nfkc, *nfkd;
};

constexpr Row kRows[] = {
    // canonical pairs, several marks, and a mark that blocks another
    {"\u00C5", "\u00C5", "A\u030A", "\u00C5", "A\u030A"},
    {"\u1E0C\u0307", "\u1E0C\u0307", "D\u0323\u0307", "\u1E0C\u0307", "D\u0323\u0307"},
    {"a\u0315\u0300\u05AE\u0300b", "\u00E0\u05AE\u0300\u0315b", "a\u05AE\u0300\u0300\u0315b",
     "\u00E0\u05AE\u0300\u0315b", "a\u05AE\u0300\u0300\u0315b"},
    {"s\u0323\u0307", "\u1E69", "s\u0323\u0307", "\u1E69", "s\u0323\u0307"},
    {"s\u0307\u0323", "\u1E69", "s\u0323\u0307", "\u1E69", "s\u0323\u0307"},
    // singletons, composition exclusions, and a decomposition that does not begin with a starter
    {"\u212B", "\u00C5", "A\u030A", "\u00C5", "A\u030A"},
    {"\u0958", "\u0915\u093C", "\u0915\u093C", "\u0915\u093C", "\u0915\u093C"},
    {"\u0344", "\u0308\u0301", "\u0308\u0301", "\u0308\u0301", "\u0308\u0301"},
    {"\uFB1F", "\u05F2\u05B7", "\u05F2\u05B7", "\u05F2\u05B7", "\u05F2\u05B7"},
    {"\U0001D15E", "\U0001D157\U0001D165", "\U0001D157\U0001D165", "\U0001D157\U0001D165",
     "\U0001D157\U0001D165"},
    // Hangul: LV, LVT, jamo, and a trailing jamo after an LVT syllable
    {"\uAC00", "\uAC00", "\u1100\u1161", "\uAC00", "\u1100\u1161"},
    {"\uAC00\u11A8", "\uAC01", "\u1100\u1161\u11A8", "\uAC01", "\u1100\u1161\u11A8"},
    {"\u1100\u1161\u11A8", "\uAC01", "\u1100\u1161\u11A8", "\uAC01", "\u1100\u1161\u11A8"},
    {"\uAC01\u11A8", "\uAC01\u11A8", "\u1100\u1161\u11A8\u11A8", "\uAC01\u11A8", "\u1100\u1161\u11A8\u11A8"},
    // compatibility: ligature, circled, width, fraction, long expansion, and one whose result composes
    {"\uFB01", "\uFB01", "\uFB01", "fi", "fi"},
    {"\u2460", "\u2460", "\u2460", "1", "1"},
    {"\uFF21", "\uFF21", "\uFF21", "A", "A"},
    {"\u00BD", "\u00BD", "\u00BD", "1\u20442", "1\u20442"},
    {"\uFF76\uFF9E", "\uFF76\uFF9E", "\uFF76\uFF9E", "\u30AC", "\u30AB\u3099"},
    {"\u1E9B\u0323", "\u1E9B\u0323", "\u017F\u0323\u0307", "\u1E69", "s\u0323\u0307"},
};

std::string nfc(std::string_view text) { return to_unicode_form(text, UnicodeForm::nfc); }
std::string nfd(std::string_view text) { return to_unicode_form(text, UnicodeForm::nfd); }
std::string nfkc(std::string_view text) { return to_unicode_form(text, UnicodeForm::nfkc); }
std::string nfkd(std::string_view text) { return to_unicode_form(text, UnicodeForm::nfkd); }

TEST(UnicodeForms, FollowNormalizationTest) {
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.source);
    for (const char* text : {row.source, row.nfc, row.nfd}) {
      EXPECT_EQ(nfc(text), row.nfc);
      EXPECT_EQ(nfd(text), row.nfd);
    }
    for (const char* text : {row.nfkc, row.nfkd}) {
      EXPECT_EQ(nfc(text), row.nfkc);
      EXPECT_EQ(nfd(text), row.nfkd);
    }
    for (const char* text : {row.source, row.nfc, row.nfd, row.nfkc, row.nfkd}) {
      EXPECT_EQ(nfkc(text), row.nfkc);
      EXPECT_EQ(nfkd(text), row.nfkd);
    }
  }
}

TEST(UnicodeForms, PiecesDoNotShow) {
  EXPECT_EQ(nfc(""), "");
  EXPECT_EQ(nfc("plain, \n\t\x01 text"), "plain, \n\t\x01 text");
  EXPECT_EQ(nfc("xe\u0301y e\u0301\u0323e\u0301"), "x\u00E9y \u1EB9\u0301\u00E9");
  EXPECT_EQ(nfc(std::string("a\0\u0301", 4)), std::string("a\0\u0301", 4));
}

TEST(UnicodeForms, ForeignBytesStay) {
  EXPECT_EQ(nfc("\xFF"
                "e\u0301\xC3"
                "e\u0301\xED\xA0\x80"),
            "\xFF\u00E9\xC3\u00E9\xED\xA0\x80");
  EXPECT_EQ(nfc("e\xFF\u0301"), "e\xFF\u0301") << "a byte between them keeps a mark from its letter";
  uint64_t state = 3;
  for (int i = 0; i < 2000; ++i) {
    const std::string bytes = test::random_bytes(state, 40);
    for (const auto& form : {nfc, nfd, nfkc, nfkd}) EXPECT_EQ(form(form(bytes)), form(bytes));
  }
}

}  // namespace
}  // namespace longreach::data
