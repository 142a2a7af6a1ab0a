// Splits, packing, mixing and the loaders.
#include "data/loader.h"

#include <gmock/gmock.h>

#include <map>
#include <numeric>
#include <set>

#include "data/packing.h"
#include "data/random.h"
#include "data/split.h"
#include "tests/data/fixtures.h"

namespace longreach::data {
namespace {

using namespace testing;
using ::testing::HasSubstr;

Corpus corpus_of(std::vector<std::shared_ptr<const TokenSource>> train,
                 std::vector<std::shared_ptr<const TokenSource>> valid = {},
                 std::vector<double> probabilities = {}) {
  if (probabilities.empty()) probabilities.assign(train.size(), 1.0 / static_cast<double>(train.size()));
  return {std::make_shared<ByteLevel>(), std::move(train), std::move(valid), std::move(probabilities)};
}

void expect_equal(const TokenBatch& a, const TokenBatch& b) {
  EXPECT_EQ(a.rows, b.rows);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.labels, b.labels);
  EXPECT_EQ(a.positions, b.positions);
  EXPECT_EQ(a.cu_seqlens, b.cu_seqlens);
}

// For a source whose tokens count up from `first`: what every batch with varlen must satisfy.
void check_packed(const TokenBatch& batch, const std::vector<int64_t>& offsets, int64_t first = 0) {
  const auto total = static_cast<size_t>(batch.rows * batch.seq_len);
  ASSERT_EQ(batch.tokens.size(), total);
  ASSERT_EQ(batch.labels.size(), total);
  ASSERT_EQ(batch.positions.size(), total);
  ASSERT_EQ(batch.cu_seqlens.front(), 0);
  ASSERT_EQ(batch.cu_seqlens.back(), static_cast<int32_t>(total));
  const std::set<int32_t> borders(batch.cu_seqlens.begin(), batch.cu_seqlens.end());
  ASSERT_EQ(borders.size(), batch.cu_seqlens.size());
  for (int64_t row = 0; row <= batch.rows; ++row)
    EXPECT_TRUE(borders.contains(static_cast<int32_t>(row * batch.seq_len)));
  const std::set<int64_t> ends(offsets.begin(), offsets.end());
  for (size_t i = 0; i < total; ++i) {
    const bool begins = borders.contains(static_cast<int32_t>(i));
    EXPECT_EQ(batch.positions[i], begins ? 0 : batch.positions[i - 1] + 1);
    const int64_t place = batch.tokens[i] - first;
    EXPECT_TRUE(begins || !ends.contains(place)) << place;
    EXPECT_TRUE(begins || batch.tokens[i] == batch.tokens[i - 1] + 1);
    const bool last_of_document = ends.contains(place + 1);
    EXPECT_EQ(batch.labels[i], last_of_document ? kIgnoreLabel : batch.tokens[i] + 1) << place;
  }
}

TEST(Permutation, VisitsEachPlaceOnce) {
  for (const uint64_t size : {1, 2, 3, 7, 64, 65, 1000, 4097}) {
    std::vector<int> seen(size);
    const Permutation order(size, 42);
    for (uint64_t i = 0; i < size; ++i) ++seen.at(order(i));
    EXPECT_EQ(seen, std::vector<int>(size, 1)) << size;
  }
  const Permutation a(1000, 1), b(1000, 2);
  int same = 0;
  for (uint64_t i = 0; i < 1000; ++i) same += a(i) == b(i);
  EXPECT_LT(same, 10);
}

class Packing : public ::testing::TestWithParam<int64_t> {};

TEST_P(Packing, KeepsDocumentsApartAndVisitsEveryToken) {
  const int64_t seq_len = GetParam();
  const auto source = counting_source({3, 1, 40, 7, 7, 1, 1, 90, 2, 13});
  const LoaderOptions options{.seq_len = seq_len, .seed = 5};
  const TrainLoader loader(corpus_of({source}), options);
  const int64_t tokens = source->num_tokens(), rows = (tokens + seq_len - 1) / seq_len;
  for (int64_t epoch = 0; epoch < 5; ++epoch) {
    const auto batch = loader.batch(epoch * rows, rows);
    check_packed(batch, source->document_offsets());
    std::vector<int> seen(static_cast<size_t>(tokens)), labelled(static_cast<size_t>(tokens));
    for (size_t i = 0; i < batch.tokens.size(); ++i) {
      ++seen[static_cast<size_t>(batch.tokens[i])];
      if (batch.labels[i] != kIgnoreLabel) ++labelled[static_cast<size_t>(batch.labels[i])];
    }
    const std::set<int64_t> begins(source->document_offsets().begin(), source->document_offsets().end());
    for (int64_t i = 0; i < tokens; ++i) {
      EXPECT_GE(seen[static_cast<size_t>(i)], 1);
      EXPECT_LE(seen[static_cast<size_t>(i)], (seq_len + tokens - 1) / tokens + 1);
      EXPECT_EQ(labelled[static_cast<size_t>(i)] > 0, !begins.contains(i)) << i;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(SeqLen, Packing, ::testing::Values(1, 2, 5, 16, 33, 165, 166, 400));

TEST(TrainLoader, TurnsTheCorpusByADifferentOffsetEachEpoch) {
  const auto source = counting_source({1000});
  const TrainLoader loader(corpus_of({source}), {.seq_len = 100, .seed = 1});
  std::set<int64_t> phases;
  for (int64_t epoch = 0; epoch < 20; ++epoch) phases.insert(loader.batch(epoch * 10, 1).tokens[0] % 100);
  EXPECT_GT(phases.size(), 12u);
}

TEST(TrainLoader, IsAPureFunctionOfSeedAndSample) {
  const auto one = counting_source({50, 200, 3, 90}), two = counting_source({400}, 1000);
  const LoaderOptions options{.seq_len = 32, .seed = 9};
  const TrainLoader loader(corpus_of({one, two}, {}, {0.3, 0.7}), options);
  const auto whole = loader.batch(0, 64);
  for (const int64_t world : {1, 2, 4, 8}) {  // ranks take every world-th group of rows, in any order
    for (int64_t sample = 64 - world; sample >= 0; sample -= world) {
      const auto part = TrainLoader(corpus_of({one, two}, {}, {0.3, 0.7}), options).batch(sample, world);
      const auto begin = static_cast<int64_t>(sample * 32), end = begin + world * 32;
      EXPECT_TRUE(std::equal(part.tokens.begin(), part.tokens.end(), whole.tokens.begin() + begin,
                             whole.tokens.begin() + end));
      EXPECT_TRUE(std::equal(part.labels.begin(), part.labels.end(), whole.labels.begin() + begin,
                             whole.labels.begin() + end));
    }
  }
  expect_equal(whole, loader.batch(0, 64));
  EXPECT_NE(
      whole.tokens,
      TrainLoader(corpus_of({one, two}, {}, {0.3, 0.7}), {.seq_len = 32, .seed = 10}).batch(0, 64).tokens);
}

TEST(TrainLoader, WithoutVarlenCutsPlainWindows) {
  const auto source = counting_source({3, 30, 1, 66});
  const TrainLoader loader(corpus_of({source}), {.seq_len = 20, .seed = 3, .varlen = false});
  const auto batch = loader.batch(0, 5);
  EXPECT_EQ(batch.cu_seqlens, (std::vector<int32_t>{0, 20, 40, 60, 80, 100}));
  for (size_t i = 0; i < batch.tokens.size(); ++i) {
    EXPECT_EQ(batch.positions[i], static_cast<int64_t>(i % 20));
    EXPECT_EQ(batch.labels[i], batch.tokens[i] == 99 ? kIgnoreLabel : batch.tokens[i] + 1);
  }
}

TEST(Mixture, DrawsExactSharesAndEachIndexOnce) {
  const std::vector<double> shares{0.1, 0.0, 0.649, 0.25, 0.001};
  const Mixture mixture(shares, 4);
  constexpr uint64_t kSamples = 1024 * 40;
  std::vector<std::vector<int>> drawn(shares.size(), std::vector<int>(kSamples));
  std::vector<uint64_t> count(shares.size());
  size_t repeats = 0, last = 9;
  for (uint64_t g = 0; g < kSamples; ++g) {
    const auto [source, index] = mixture.draw(g);
    ++drawn[source].at(index);
    ++count[source];
    repeats += source == last;
    last = source;
  }
  for (size_t i = 0; i < shares.size(); ++i) {
    EXPECT_NEAR(static_cast<double>(count[i]), shares[i] * kSamples, 5) << i;
    for (uint64_t k = 0; k < kSamples; ++k) ASSERT_EQ(drawn[i][k], k < count[i] ? 1 : 0);
  }
  // In random order: two in a row come from one source as often as chance says.
  const double chance = 0.1 * 0.1 + 0.649 * 0.649 + 0.25 * 0.25;
  EXPECT_NEAR(static_cast<double>(repeats) / kSamples, chance, 0.02);
}

TEST(FineTuning, PacksWholeDocumentsAndMasksLabels) {
  std::vector<uint8_t> mask(100, 0);
  for (size_t i = 0; i < 100; i += 3) mask[i] = 1;
  const auto source = counting_source({5, 6, 4, 30, 8, 9, 38}, 0, mask);
  const LoaderOptions options{.seq_len = 16, .seed = 2};
  const TrainLoader loader(corpus_of({source}), options);
  const RowPlan plan(*source, options);
  const auto batch = loader.batch(0, plan.rows_per_epoch());
  std::set<int64_t> labelled, begins(source->document_offsets().begin(), source->document_offsets().end());
  std::map<int64_t, int> seen;
  for (size_t i = 0; i < batch.tokens.size(); ++i) {
    if (batch.labels[i] == kIgnoreLabel) continue;
    EXPECT_EQ(batch.labels[i], batch.tokens[i] + 1);
    EXPECT_EQ(mask[static_cast<size_t>(batch.labels[i])], 1);
    EXPECT_FALSE(begins.contains(batch.labels[i]));
    EXPECT_TRUE(labelled.insert(batch.labels[i]).second);
  }
  for (int64_t i = 0; i < 100; i += 3) EXPECT_EQ(labelled.contains(i), !begins.contains(i)) << i;
  // Short documents are never cut: the first token of each stands at the beginning of a piece with all the
  // others.
  for (const int32_t begin : batch.cu_seqlens) {
    if (begin == batch.cu_seqlens.back()) break;
    const int64_t token = batch.tokens[static_cast<size_t>(begin)];
    const bool continues_long =
        token > 15 && token < 45 ? (token - 15) % 16 == 0 : token > 62 && (token - 62) % 16 == 0;
    EXPECT_TRUE(begins.contains(token) || continues_long) << token;
  }
}

TEST(HoldOut, FollowsTheRules) {
  const auto files = counting_source(std::vector<int64_t>(2000, 40));
  const auto by_file = hold_out(files, 0.05, true);
  EXPECT_EQ(by_file.valid->num_tokens(), 2000 * 2);
  EXPECT_EQ(by_file.valid->document_offsets().size(), 2001u);
  const auto by_document = hold_out(files, 0.05, false);
  EXPECT_EQ(by_document.valid->num_tokens(), 100 * 40);
  EXPECT_EQ(read_all(*by_document.valid).front(), 1900 * 40);
  const auto few = hold_out(counting_source({100, 10, 200}), 0.05, false);
  EXPECT_EQ(read_all(*few.valid),
            (std::vector<Token>{95, 96, 97, 98, 99, 300, 301, 302, 303, 304, 305, 306, 307, 308, 309}));
  EXPECT_EQ(few.train->document_offsets(), (std::vector<int64_t>{0, 95, 105, 295}));
  const auto chats =
      hold_out(counting_source(std::vector<int64_t>(10, 9), 0, std::vector<uint8_t>(90, 1)), 0.05, false);
  EXPECT_EQ(chats.valid->document_offsets(), (std::vector<int64_t>{0, 9}));
  EXPECT_EQ(hold_out(files, 0, true).valid, nullptr);
  EXPECT_THAT(error_of([&] { hold_out(counting_source({10}), 0.05, true); }), HasSubstr("valid_fraction"));
  for (const auto& split : {by_file, by_document, few}) {
    const auto train = read_all(*split.train), valid = read_all(*split.valid);
    std::set<Token> all(train.begin(), train.end());
    for (const Token token : valid) EXPECT_TRUE(all.insert(token).second);
    EXPECT_EQ(all.size(), train.size() + valid.size());
  }
}

TEST(Slice, ReadsWindowsAcrossDocuments) {
  const auto source = counting_source({100, 100, 100});
  const auto part = slice(source, {{0, 10}, {10, 20}, {50, 60}, {70, 70}, {200, 300}});
  EXPECT_EQ(part->document_offsets(), (std::vector<int64_t>{0, 10, 20, 30, 130}));
  const auto all = read_all(*part);
  for (int64_t begin = 0; begin < 130; begin += 3)
    for (int64_t length = 0; begin + length <= 130; length += 7) {
      std::vector<Token> window(static_cast<size_t>(length));
      part->read(begin, window);
      ASSERT_TRUE(std::equal(window.begin(), window.end(), all.begin() + begin));
    }
  EXPECT_EQ(all[25], 55);
  EXPECT_EQ(all[30], 200);
}

class Validation : public ::testing::TestWithParam<bool> {};

TEST_P(Validation, LabelsEveryTokenOnce) {
  const bool varlen = GetParam();
  const auto one = counting_source({30, 1, 65, 4}), two = counting_source({17}, 150);
  for (const int64_t seq_len : {1, 7, 16, 500}) {
    const ValidLoader loader(corpus_of({one}, {one, two}), {.seq_len = seq_len, .varlen = varlen});
    EXPECT_EQ(loader.num_rows(), (100 + seq_len - 1) / seq_len + (17 + seq_len - 1) / seq_len);
    std::map<int64_t, int> labelled;
    int64_t labels = 0;
    for (int64_t row = 0; row < loader.num_rows() + 3; row += 3) {
      const auto batch = loader.batch(row, 3);
      EXPECT_EQ(batch.rows, std::clamp<int64_t>(loader.num_rows() - row, 0, 3));
      EXPECT_EQ(batch.cu_seqlens.back(), batch.rows * seq_len);
      for (size_t i = 0; i < batch.labels.size(); ++i) {
        if (batch.labels[i] == kIgnoreLabel) continue;
        EXPECT_EQ(batch.labels[i], batch.tokens[i] + 1);
        ++labelled[batch.labels[i]];
        ++labels;
      }
    }
    const std::set<int64_t> unlabelled =
        varlen ? std::set<int64_t>{0, 30, 31, 96, 150} : std::set<int64_t>{0, 150};
    for (int64_t token = 0; token < 167; ++token)
      EXPECT_EQ(labelled[token], unlabelled.contains(token) || (token >= 100 && token < 150) ? 0 : 1)
          << token;
    EXPECT_EQ(loader.num_bytes(), labels);  // a byte a token
  }
}
INSTANTIATE_TEST_SUITE_P(Varlen, Validation, ::testing::Bool());

TEST(ValidLoader, CountsBytesOfLabelledTextOnly) {
  auto tokenizer = std::make_shared<ByteLevel>(std::vector<std::string>{"<eos>", "<long special>"}, true);
  std::vector<Token> tokens;
  std::vector<int64_t> offsets{0};
  for (const char* document : {"abc<eos>", "x<long special>yz<eos>"}) {
    for (const Token token : tokenizer->encode(document)) tokens.push_back(token);
    offsets.push_back(static_cast<int64_t>(tokens.size()));
  }
  Corpus corpus{tokenizer, {}, {std::make_shared<MemorySource>(tokens, offsets)}, {}};
  EXPECT_EQ(ValidLoader(corpus, {.seq_len = 4}).num_bytes(), 2 + 14 + 2);
  int64_t bytes = 0;
  for_each_text(corpus.valid, *tokenizer,
                [&](std::string_view text, bool) { bytes += static_cast<int64_t>(text.size()); });
  EXPECT_EQ(bytes, 3 + 1 + 14 + 2);
}

TEST(Loaders, RefuseEmptyCorpora) {
  EXPECT_THROW(TrainLoader(corpus_of({}), {}), DataError);
  EXPECT_THROW(TrainLoader(corpus_of({counting_source({})}), {}), DataError);
  EXPECT_THROW(TrainLoader(corpus_of({counting_source({5})}), {.seq_len = 0}), DataError);
  EXPECT_EQ(ValidLoader(corpus_of({counting_source({5})}), {}).num_rows(), 0);
}

}  // namespace
}  // namespace longreach::data
