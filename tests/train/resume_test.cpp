// What a run that goes on is compared with.
#include "train/resume.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "train/config_changes.h"

namespace longreach {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Json = nlohmann::json;

Json identity() {
  return {{"train",
           {{{"name", "a.txt"}, {"tokens", 100}, {"content", "aa"}},
            {{"name", "b"}, {"tokens", 7}, {"content", "bb"}}}},
          {"shares", {0.5, 0.5}},
          {"seed", 42},
          {"seq_len", 64},
          {"rows", 8},
          {"varlen", true}};
}

TEST(DataChanges, NamesWhatDiffers) {
  Json now = identity();
  EXPECT_THAT(data_changes(identity(), now), IsEmpty());
  now["train"][0]["name"] = "moved.txt";
  EXPECT_THAT(data_changes(identity(), now), IsEmpty());
  now["train"][0]["content"] = "ab";
  now["train"][1]["tokens"] = 8;
  now["shares"] = {0.4, 0.6};
  now["seed"] = 1;
  EXPECT_THAT(data_changes(identity(), now),
              ElementsAre("data.train: moved.txt holds other text of as many tokens",
                          "data.train: b has 8 tokens, it had 7", "training.seed 42 -> 1"));
  now = identity();
  now["shares"] = {0.4, 0.6};
  EXPECT_THAT(data_changes(identity(), now), ElementsAre("data.data_probs: shares [0.5,0.5] -> [0.4,0.6]"));
  now["train"].erase(1);
  EXPECT_THAT(data_changes(identity(), now), ElementsAre("data.train has 1 sources, it had 2"));
}

TEST(DataChanges, ReadsTheFormWithPaths) {
  const std::string old = "/runs/a/data/a.txt-0123.h5:100;/x:y/b:7; seed 42 seq_len 64 rows 8 varlen 1";
  EXPECT_THAT(data_changes(old, identity()), IsEmpty());
  EXPECT_THAT(data_changes("a:100;b:8; seed 42 seq_len 32 rows 8 varlen 0", identity()),
              ElementsAre("data.train: b has 7 tokens, it had 8", "training.seq_len 32 -> 64",
                          "training.varlen false -> true"));
  EXPECT_EQ(data_changes("something else", identity()).size(), 1u);
  EXPECT_EQ(data_changes(7, identity()).size(), 1u);
}

TEST(ModelChanges, CompareLayersHoweverTheTablesAreCut) {
  ModelConfig before, after;
  before.num_hidden_layers = after.num_hidden_layers = 6;
  SlidingConfig narrow, wide;
  narrow.window = 8;
  wide.window = 16;
  before.attention = {{.layers = "0-4", .config = narrow}, {.layers = "5", .config = DenseConfig()}};
  after.attention = {{.layers = "0", .config = narrow},
                     {.layers = "1,2,4", .config = wide},
                     {.layers = "3", .config = narrow},
                     {.layers = "5", .config = NsaConfig()}};
  after.rope.theta = 5e5;
  std::vector<std::string> said;
  for (const KeyChange& change : model_changes(before, after)) said.push_back(described(change));
  EXPECT_THAT(said, ElementsAre("model.rope_theta: 10000.0 -> 500000.0",
                                "model.attention.window (layers 1-2,4): 8 -> 16",
                                "model.attention.kind (layer 5): dense -> nsa"));
  EXPECT_THAT(model_changes(after, after), IsEmpty());
}

TEST(RunChanges, LeaveOutTheModelAndThePlace) {
  RunConfig before, after;
  after.job.dump_folder = "elsewhere";
  after.model.hidden_size = 64;
  EXPECT_THAT(run_changes(before, after), IsEmpty());
  after.validation.rows = 3;
  const auto changes = run_changes(before, after);
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(described(changes[0]), "validation.rows: 16 -> 3");
}

}  // namespace
}  // namespace longreach
