// What a dry run predicts of how evenly ranks share rows, on real text.
#include "train/context_balance.h"

#include <gtest/gtest.h>

#include "core/temporary_folder.h"

namespace longreach {
namespace {

// The project's own documents and sources, a file a document, in bytes.
data::Corpus own_text(const TemporaryFolder& folder) {
  data::DataConfig config;
  config.train = {LONGREACH_SOURCE_DIR "/docs", LONGREACH_SOURCE_DIR "/train",
                  LONGREACH_SOURCE_DIR "/distributed"};
  return data::open_corpus(config, folder.path("stores"));
}

// Visible pairs, packed rows of three lengths, every micro-batch.
TEST(ContextBalance, PtrrSharesPackedRowsOfRealTextWithinThreePercent) {
  const TemporaryFolder folder;
  const data::Corpus corpus = own_text(folder);
  for (const int64_t tokens : {8192, 16384, 65536}) {
    TrainingConfig training;
    training.seq_len = tokens;
    training.batch_size = 1;
    const data::TrainLoader loader(corpus, {.seq_len = tokens, .seed = 5});
    for (const int ranks : {2, 4, 8}) {
      SCOPED_TRACE(testing::Message() << tokens << " tokens, " << ranks << " ranks");
      const auto predicted = predicted_balance(loader, training, ranks, {.grain = 64}, 20);
      ASSERT_EQ(predicted.size(), 3u);
      EXPECT_EQ(predicted[0].balance, Balance::ptrr);
      EXPECT_LE(predicted[0].most, 1.03);
      EXPECT_LE(predicted[0].mean, predicted[0].most);
      EXPECT_EQ(predicted[2].balance, Balance::none);
      EXPECT_GT(predicted[2].most, 1.03) << "these rows need no balance";
    }
  }
}

}  // namespace
}  // namespace longreach
