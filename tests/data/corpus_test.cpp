// Corpora as configs name them, and how a chat reaches the labels of a batch.
#include <gmock/gmock.h>

#include "core/config.h"
#include "data/loader.h"
#include "tests/data/corpora/texts.h"

namespace longreach::data {
namespace {

using namespace testing;
using ::testing::HasSubstr;

DataConfig config_of(std::vector<std::string> train) {
  DataConfig config;
  config.train = std::move(train);
  return config;
}

TEST(OpenCorpus, MixesStoresAndText) {
  const TemporaryFolder folder;
  const auto text = folder.write("a.txt", std::string(900, 'a')),
             more = folder.write("b.txt", std::string(100, 'b'));
  tokenize_files({more}, *load_tokenizer("bytes"), {}, folder.path("b.h5"));
  const std::vector<uint16_t> flat(200, 'c');
  const auto bin = folder.write("c.bin", {reinterpret_cast<const char*>(flat.data()), 400});
  auto config = config_of({text, folder.path("b.h5"), bin});
  const auto corpus = open_corpus(config, folder.path("cache"));
  ASSERT_EQ(corpus.train.size(), 3u);
  ASSERT_EQ(corpus.valid.size(), 3u);
  const int64_t eos = corpus.tokenizer->eos() ? 1 : 0;
  EXPECT_NEAR(static_cast<double>(corpus.train[0]->num_tokens()), 855, static_cast<double>(eos));
  EXPECT_EQ(corpus.train[2]->num_tokens(), 190);
  EXPECT_NEAR(corpus.probabilities[0], 0.75, 1e-3);
  const auto size = size_of(corpus.valid);
  EXPECT_EQ(size.documents, 3);
  EXPECT_EQ(size.longest, 45);
  config.data_probs = {1, 1, 2};
  config.valid = {text};
  const auto explicit_valid = open_corpus(config, folder.path("cache"));
  EXPECT_EQ(explicit_valid.probabilities, (std::vector<double>{0.25, 0.25, 0.5}));
  EXPECT_EQ(explicit_valid.train[2]->num_tokens(), 200);
  EXPECT_EQ(explicit_valid.valid.size(), 1u);
}

TEST(OpenCorpus, SaysWhatIsWrong) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { open_corpus(config_of({}), folder.path("c")); }),
              HasSubstr("data.train is empty"));
  auto config = config_of({folder.write("a.txt", "some text that is long enough")});
  config.data_probs = {1, 2};
  EXPECT_THAT(error_of([&] { open_corpus(config, folder.path("c")); }),
              HasSubstr("data.data_probs has 2 values"));
  config.data_probs = {-1};
  EXPECT_THAT(error_of([&] { open_corpus(config, folder.path("c")); }), HasSubstr("allowed: numbers >= 0"));
  config.data_probs = {0};
  EXPECT_THAT(error_of([&] { open_corpus(config, folder.path("c")); }), HasSubstr("0 for every entry"));
  tokenize_files(config.train, ByteLevel({"<eos>"}), {}, folder.path("other.h5"));
  EXPECT_THAT(error_of([&] { open_corpus(config_of({folder.path("other.h5")}), folder.path("c")); }),
              HasSubstr("was made with the tokenizer"));
}

TEST(DataConfig, RefusesProbabilitiesByKey) {
  DataConfig config;
  const auto read = [&](const std::string& toml) {
    ConfigDocument::from_text(toml, "t.toml").read(fields_of(config));
  };
  read("train = [\"a\", \"b\"]\ndata_probs = [0.5, 0.5]");
  EXPECT_EQ(config.data_probs.size(), 2u);
  EXPECT_THROW(read("train = [\"a\", \"b\"]\ndata_probs = [0.5]"), ConfigError);
  EXPECT_THROW(read("train = [\"a\"]\ndata_probs = [-0.5]"), ConfigError);
  EXPECT_THROW(read("train = [\"a\"]\ndata_probs = []\nvalid_fraction = 1.5"), ConfigError);
}

TEST(Chat, ReachesTheLabelsOfABatch) {
  const TemporaryFolder folder;
  const auto path = folder.write("c.jsonl",
                                 "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"},"
                                 " {\"role\": \"assistant\", \"content\": \"answer\"}]}\n"
                                 "{\"prompt\": \"2+2=\", \"completion\": \"4\"}\n");
  const auto tokenizer =
      std::make_shared<ByteLevel>(std::vector<std::string>{"<|im_end|>", "<|im_start|>"}, true);
  const std::shared_ptr<const TokenSource> store = store_of({path}, folder, *tokenizer);
  EXPECT_TRUE(store->has_loss_mask());
  const TrainLoader loader({tokenizer, {store}, {}, {1.0}}, {.seq_len = 64});
  std::vector<Token> labels;
  for (const int64_t label : loader.batch(0, 1).labels)
    if (label != kIgnoreLabel) labels.push_back(static_cast<Token>(label));
  EXPECT_EQ(tokenizer->decode(labels), "answer<|im_end|>4<|im_end|>");
}

}  // namespace
}  // namespace longreach::data
