// Which sources have something to learn.
#include "train/labels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "core/error.h"

namespace longreach {
namespace {

class Source : public data::TokenSource {
 public:
  Source(int64_t tokens, std::vector<int64_t> offsets, std::vector<int64_t> labelled)
      : tokens_(tokens), offsets_(std::move(offsets)), labelled_(std::move(labelled)) {}
  int64_t num_tokens() const override { return tokens_; }
  const std::vector<int64_t>& document_offsets() const override { return offsets_; }
  void read(int64_t, std::span<data::Token> out) const override { std::fill(out.begin(), out.end(), 0); }
  bool has_loss_mask() const override { return true; }
  void read_loss_mask(int64_t begin, std::span<uint8_t> out) const override {
    std::fill(out.begin(), out.end(), 0);
    for (const int64_t at : labelled_)
      if (at >= begin && at < begin + static_cast<int64_t>(out.size())) out[at - begin] = 1;
  }
  std::string name() const override { return "source"; }

 private:
  int64_t tokens_;
  std::vector<int64_t> offsets_, labelled_;
};

std::string refusal(const std::vector<std::shared_ptr<const data::TokenSource>>& sources, bool varlen) {
  try {
    expect_labels({.train = sources}, {.seq_len = 64, .varlen = varlen});
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

TEST(Labels, OneInAnySourceIsEnough) {
  const auto empty = std::make_shared<Source>(20, std::vector<int64_t>{0, 8, 20}, std::vector<int64_t>{});
  const auto late = std::make_shared<Source>(3'000'000, std::vector<int64_t>{0, 3'000'000},
                                             std::vector<int64_t>{2'999'999});
  EXPECT_EQ(refusal({empty, late}, true), "");
  const std::string refused = refusal({empty, empty}, true);
  for (const char* word : {"data.train", "source", "`assistant`", "training.seq_len = 64", "2", "12"})
    EXPECT_NE(refused.find(word), std::string::npos) << refused;
}

// Nothing goes before the first token of a document that is kept apart.
TEST(Labels, ThatOfAFirstTokenIsNone) {
  const auto firsts =
      std::make_shared<Source>(20, std::vector<int64_t>{0, 8, 20}, std::vector<int64_t>{0, 8});
  EXPECT_NE(refusal({firsts}, true), "");
  EXPECT_EQ(refusal({firsts}, false), "");
}

}  // namespace
}  // namespace longreach
