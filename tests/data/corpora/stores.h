// What the tests of token stores share.
#pragma once
#include <gmock/gmock.h>

#include "data/corpora/token_store.h"
#include "tests/data/corpora/damage.h"
#include "tests/data/fixtures.h"

namespace longreach::data::testing {

inline StoreAbout about_bytes(int64_t vocab_size = 300) {
  return {.tokenizer_name = "bytes",
          .tokenizer_fingerprint = "f00d",
          .vocab_size = vocab_size,
          .source = "a test"};
}

// Documents of the given lengths, cut from `tokens`; returns the path.
inline std::string write_store(const std::string& path, const std::vector<Token>& tokens,
                               const std::vector<int64_t>& lengths, const StoreAbout& about) {
  TokenStoreWriter writer(path, about);
  size_t at = 0;
  for (const int64_t length : lengths) {
    writer.append(std::span(tokens).subspan(at, static_cast<size_t>(length)));
    writer.end_document();
    at += static_cast<size_t>(length);
  }
  writer.finish();
  return path;
}

// Opening, reading and verifying a damaged file ends in a DataError or, where the damage does not matter, in
// the right tokens; never in anything else. True when it was read.
inline bool expect_error_or_truth(const std::string& path, const std::vector<Token>& tokens,
                                  const std::vector<int64_t>& offsets) {
  try {
    const auto store = TokenStore::open(path);
    EXPECT_EQ(store->document_offsets(), offsets);
    EXPECT_EQ(read_all(*store), tokens);
    std::vector<uint8_t> mask(tokens.size());
    store->read_loss_mask(0, mask);
    EXPECT_EQ(mask, std::vector<uint8_t>(tokens.size(), 1));
    store->verify();
    return true;
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), ::testing::StartsWith(path));
    EXPECT_EQ(one_line(error.what()), error.what());
    return false;
  }
}

// `count` stores, each with other metadata damaged and its checksum mended: plain, packed, with a mask, and
// one of many chunks.
inline void expect_damage_is_survived(int count, uint32_t seed) {
  const TemporaryFolder folder;
  std::mt19937 random(seed);
  int read = 0, refused = 0;
  for (const int kind : {0, 1, 2, 3}) {
    StoreAbout about = about_bytes(kind == 1 ? 70000 : 300);
    about.gzip_level = kind == 3 ? 0 : kind;
    about.loss_mask = kind == 2;
    const int64_t length = kind == 3 ? 1500000 : 70000;
    const auto tokens = random_tokens(static_cast<size_t>(length), 256, seed);
    const std::string whole =
        contents_of(write_store(folder.path("whole.h5"), tokens, {100, length - 100}, about));
    const auto blocks = metadata_blocks(whole);
    ASSERT_GE(blocks.size(), 8u);
    for (int i = kind; i < count; i += 4) {
      const auto path = folder.write("damaged.h5", damaged(whole, blocks, random));
      ++(expect_error_or_truth(path, tokens, {0, 100, length}) ? read : refused);
      ASSERT_FALSE(::testing::Test::HasFailure()) << "seed " << seed << ", kind " << kind << ", file " << i;
    }
  }
  EXPECT_GT(read, 0);
  EXPECT_GT(refused, count / 4);
  ::testing::Test::RecordProperty("read", read);
  ::testing::Test::RecordProperty("refused", refused);
}

}  // namespace longreach::data::testing
