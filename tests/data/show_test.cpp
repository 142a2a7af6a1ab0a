// What `data inspect --show` prints of a store.
#include "data/show.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "core/error.h"
#include "core/temporary_folder.h"

namespace longreach::data {
namespace {

using ::testing::HasSubstr;

struct Piece {
  std::string text;
  bool label = true;
};

class Show : public ::testing::Test {
 protected:
  std::shared_ptr<TokenStore> store(const std::vector<std::vector<Piece>>& documents, bool loss_mask) {
    StoreAbout about{.tokenizer_name = bytes_->name(),
                     .tokenizer_fingerprint = bytes_->fingerprint(),
                     .vocab_size = bytes_->vocab_size(),
                     .source = "made up",
                     .loss_mask = loss_mask};
    const std::string path = folder_.path("show.h5");
    TokenStoreWriter writer(path, about);
    for (const auto& document : documents) {
      for (const auto& [text, label] : document) {
        const std::vector<Token> tokens = bytes_->encode(text);
        const std::vector<uint8_t> mask(tokens.size(), label ? 1 : 0);
        writer.append(tokens, loss_mask ? std::span<const uint8_t>(mask) : std::span<const uint8_t>());
      }
      writer.end_document();
    }
    writer.finish();
    return TokenStore::open(path);
  }

  std::string shown(const TokenStore& store, const ShowOptions& options) {
    std::ostringstream out;
    show_documents(store, *bytes_, options, out);
    return out.str();
  }

  TemporaryFolder folder_;
  std::unique_ptr<Tokenizer> bytes_ = load_tokenizer("bytes");
};

TEST_F(Show, MarksLabelsAndBordersOfDocuments) {
  const auto chat =
      store({{{"user: hi\n", false}, {"hello\nthere"}}, {{"a", false}, {"b"}, {"c\n", false}}}, true);
  EXPECT_EQ(shown(*chat, {.documents = 9}),
            "document 0: 20 tokens, 11 of them labels\n- user: hi\\n\n+ hello\\n\n+ there\n"
            "document 1: 4 tokens, 1 of them labels\n- a\n+ b\n- c\\n\n");
  EXPECT_EQ(shown(*chat, {.first = 1, .documents = 1, .tokens = 2}),
            "document 1: 4 tokens, 1 of them labels\n- a\n+ b\n  ... 2 more tokens\n");
}

TEST_F(Show, WritesNothingThatATerminalObeys) {
  const auto text = store({{{"\x1b[2J\\ \t\xff \xc2\x9b g\xc3\xa4\r"}}}, false);
  EXPECT_EQ(shown(*text, {.tokens = 0}),
            "document 0: 16 tokens, 16 of them labels\n+ \\x1b[2J\\\\ \\t\\xff \\xc2\\x9b g\xc3\xa4\\r\n");
}

// A character of several tokens is cut where its label is; what the tokens decode to is not lost.
TEST_F(Show, ABorderInsideACharacterLosesNothing) {
  EXPECT_EQ(shown(*store({{{"\xc3", false}, {"\xa4"}}}, true), {}),
            "document 0: 2 tokens, 1 of them labels\n- \\xc3\n+ \\xa4\n");
}

TEST_F(Show, RefusesAnotherTokenizerAndDocumentsThatAreNotThere) {
  const auto one = store({{{"text"}}}, false);
  EXPECT_THROW(shown(*one, {.first = 1}), DataError);
  class Other : public Tokenizer {
   public:
    std::vector<Token> encode(std::string_view, bool) const override { return {}; }
    std::string decode(std::span<const Token>) const override { return {}; }
    int64_t vocab_size() const override { return 1; }
    std::optional<Token> bos() const override { return {}; }
    std::optional<Token> eos() const override { return {}; }
    std::optional<Token> id_of(std::string_view) const override { return {}; }
    std::string name() const override { return "other"; }
    std::string fingerprint() const override { return "f00d"; }
  } other;
  std::ostringstream out;
  try {
    show_documents(*one, other, {}, out);
    FAIL() << out.str();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("found other of fingerprint f00d"));
    EXPECT_THAT(error.what(), HasSubstr(bytes_->fingerprint()));
  }
}

}  // namespace
}  // namespace longreach::data
