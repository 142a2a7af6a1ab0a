// Going on: from which checkpoint, with what beside it, and what is said about what has changed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "tests/support/files.h"
#include "tests/support/program.h"
#include "tests/support/tiny_run.h"

namespace longreach::test {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Words = std::vector<std::string>;

class Resume : public testing::Test {
 protected:
  ProgramResult train(Words overrides = {}) {
    overrides.insert(overrides.begin(), {"train", config_});
    return run_program(overrides);
  }
  // The names in the folder of checkpoints, sorted.
  std::vector<std::string> names(const std::string& below = "run/checkpoint") const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(folder_.path(below)))
      found.push_back(entry.path().filename().string());
    std::sort(found.begin(), found.end());
    return found;
  }
  // The steps of metrics.jsonl have no gap.
  void expect_steps(int64_t last) const {
    const auto loss = losses(folder_.path("run"));
    EXPECT_EQ(loss.begin()->first, 1);
    EXPECT_EQ(loss.rbegin()->first, last);
    EXPECT_EQ(static_cast<int64_t>(loss.size()), last);
  }
  TemporaryFolder folder_;
  const std::string config_ = write_tiny_run(folder_);
};

TEST_F(Resume, AnEarlierStepSetsLaterOnesAside) {
  ASSERT_EQ(train().code, 0);  // 4, 8, 12
  const Words back = {"--checkpoint.load_step", "4",   "--training.stop_at",         "6",
                      "--checkpoint.interval",  "2",   "--checkpoint.keep_latest_k", "1",
                      "--optimizer.lr",         "1e-3"};
  const ProgramResult first = train(back);
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_THAT(first.out, HasSubstr("step-00000012.set-aside"));
  EXPECT_THAT(names(), ElementsAre("step-00000004", "step-00000006", "step-00000008.set-aside",
                                   "step-00000012.set-aside"));
  const ProgramResult second = train({"--training.stop_at", "8", "--optimizer.lr", "1e-3"});
  ASSERT_EQ(second.code, 0) << second.err;
  EXPECT_THAT(second.out, HasSubstr("after step 6"));
  EXPECT_THAT(second.out, Not(HasSubstr("set aside")));
  expect_steps(8);
  ASSERT_EQ(train({"--checkpoint.load_step", "6", "--training.stop_at", "7"}).code, 0);
  EXPECT_THAT(names(), ::testing::IsSupersetOf({"step-00000008.set-aside", "step-00000008.set-aside-2"}));
  EXPECT_EQ(run_program({"eval", folder_.path("run/checkpoint/step-00000008.set-aside")}).code, 0);
}

TEST_F(Resume, NothingIsSetAsideWhenTheStepCannotBeUsed) {
  ASSERT_EQ(train().code, 0);
  flip_bit(folder_.path("run/checkpoint/step-00000004/model-00000.safetensors"), 2000);
  for (const char* step : {"4", "5"}) {
    const ProgramResult result = train({"--checkpoint.load_step", step});
    EXPECT_EQ(result.code, 2) << result.err;
    EXPECT_THAT(names(), ElementsAre("step-00000004", "step-00000008", "step-00000012"));
    expect_steps(12);
  }
}

TEST_F(Resume, TheLastGoodCheckpointOutlivesDamagedOnes) {
  for (const char* keep : {"1", "2"}) {
    fs::remove_all(folder_.path("run"));
    ASSERT_EQ(train({"--checkpoint.interval", "2", "--training.stop_at", "6"}).code, 0);
    for (const char* step : {"4", "6"})
      flip_bit(
          folder_.path(std::string("run/checkpoint/step-0000000") + step + "/optimizer-00000.safetensors"),
          5000);
    const ProgramResult result = train({"--training.stop_at", "3", "--checkpoint.keep_latest_k", keep});
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr("after step 2"));
    const ProgramResult again = train({"--training.stop_at", "4", "--checkpoint.keep_latest_k", keep});
    ASSERT_EQ(again.code, 0) << again.err;
    EXPECT_THAT(again.out, HasSubstr("after step 3"));
    EXPECT_THAT(again.err, Not(HasSubstr("cannot be used")));
    expect_steps(4);
    EXPECT_EQ(run_program({"eval", folder_.path("run")}).code, 0);
  }
}

TEST_F(Resume, AnotherModelIsRefusedByKeyAndValues) {
  ASSERT_EQ(train({"--training.stop_at", "4"}).code, 0);
  const auto refused = [&](const Words& overrides, const std::string& what) {
    const ProgramResult result = train(overrides);
    EXPECT_EQ(result.code, 2) << what;
    EXPECT_THAT(result.err, HasSubstr(what));
  };
  refused({"--model.num_attention_heads", "8", "--model.num_key_value_heads", "4"},
          "model.num_attention_heads = 4 there, 8 here; model.num_key_value_heads = 2 there, 4 here");
  refused({"--model.rms_norm_eps", "1e-6"}, "model.rms_norm_eps = 1e-05 there, 1e-06 here");
  refused({"--model.rope_theta", "5e5"}, "model.rope_theta = 10000.0 there, 500000.0 here");
  refused({"--model.attention.1.window", "8"}, "model.attention.window (layer 1) = 16 there, 8 here");
  refused({"--model.attention.2.kind", "sliding"},
          "model.attention.kind (layer 2) = dense there, sliding here");
  expect_steps(4);
  const ProgramResult kept =
      train({"--model.attention.2.layers", "2-2", "--model.initializer_range", "0.03"});
  EXPECT_EQ(kept.code, 0) << kept.err;
}

TEST_F(Resume, AnotherTokenizerIsRefused) {
  const std::string tokenizer = LONGREACH_SOURCE_DIR "/tests/data/files/bpe_gpt2.json";
  ASSERT_EQ(train({"--training.stop_at", "4", "--model.vocab_size", "4096"}).code, 0);
  const ProgramResult result = train({"--data.tokenizer", tokenizer, "--model.vocab_size", "4096"});
  EXPECT_EQ(result.code, 2) << result.err;
  EXPECT_THAT(result.err, HasSubstr("was trained with the tokenizer"));
  EXPECT_THAT(result.err, HasSubstr("(bytes)"));
  EXPECT_THAT(result.err, HasSubstr(tokenizer));
  expect_steps(4);
}

TEST_F(Resume, SaysWhatHasChanged) {
  ASSERT_EQ(train({"--training.stop_at", "4"}).code, 0);
  const ProgramResult same = train({"--training.stop_at", "5"});
  EXPECT_THAT(same.err, Not(HasSubstr("warning")));
  EXPECT_THAT(same.out, Not(HasSubstr("optimizer.")));
  const ProgramResult rows =
      train({"--training.stop_at", "6", "--training.batch_size", "2", "--optimizer.weight_decay", "0.05"});
  ASSERT_EQ(rows.code, 0) << rows.err;
  EXPECT_THAT(rows.err, HasSubstr("rows a step 8 -> 4; the order of the data changes"));
  EXPECT_THAT(rows.out, HasSubstr("changed    optimizer.weight_decay: 0.1 -> 0.05\n"));
  EXPECT_THAT(rows.out, HasSubstr("changed    training.batch_size: 4 -> 2\n"));
  folder_.write("corpus/two.txt", generated_prose(20000, 3));
  const ProgramResult text = train({"--training.stop_at", "7", "--training.batch_size", "2"});
  ASSERT_EQ(text.code, 0) << text.err;
  EXPECT_THAT(text.err, HasSubstr("data.train: corpus "));
}

TEST_F(Resume, OtherSharesOfTheSameTextsAreSaid) {
  const std::string corpora =
      "['" + folder_.path("corpus/one.txt") + "', '" + folder_.path("corpus/two.txt") + "']";
  ASSERT_EQ(
      train({"--data.train", corpora, "--data.data_probs", "[0.5, 0.5]", "--training.stop_at", "4"}).code, 0);
  const ProgramResult result =
      train({"--data.train", corpora, "--data.data_probs", "[0.25, 0.75]", "--training.stop_at", "5"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("shares [0.5,0.5] -> [0.25,0.75]"));
}

TEST_F(Resume, MoreStepsThatRaiseTheLearningRateAreSaid) {
  for (const char* shape : {"cosine", "linear", "wsd", "constant"}) {
    fs::remove_all(folder_.path("run"));
    const Words schedule = {"--lr_scheduler.decay_type", shape, "--lr_scheduler.lr_min", "0.1"};
    Words more = schedule;
    more.insert(more.end(), {"--training.steps", "24", "--training.stop_at", "13"});
    ASSERT_EQ(train(schedule).code, 0);
    const ProgramResult result = train(more);
    ASSERT_EQ(result.code, 0) << result.err;
    const auto lines = read_metrics(folder_.path("run"));
    const double leap = lines.at(12).at("lr") / lines.at(11).at("lr");
    if (shape == std::string("constant")) {
      EXPECT_THAT(result.err, Not(HasSubstr("warning")));
    } else {
      EXPECT_GT(leap, 2) << shape;
      EXPECT_THAT(result.err, HasSubstr("the learning rate rises from 0.0003 at step 12 to 0.00")) << shape;
      EXPECT_THAT(result.err, HasSubstr("training.steps 12 -> 24")) << shape;
    }
  }
}

TEST_F(Resume, WarmUpIsNoRise) {
  ASSERT_EQ(train({"--lr_scheduler.warmup_steps", "8", "--training.stop_at", "4"}).code, 0);
  EXPECT_THAT(train({"--lr_scheduler.warmup_steps", "8"}).err, Not(HasSubstr("learning rate")));
}

TEST_F(Resume, AMovedRunWarnsOfNothingAndOldStatesAreRead) {
  ASSERT_EQ(train({"--training.stop_at", "4"}).code, 0);
  fs::rename(folder_.path("run"), folder_.path("moved"));
  const ProgramResult moved = train({"--job.dump_folder", folder_.path("moved"), "--training.stop_at", "5"});
  EXPECT_EQ(moved.code, 0) << moved.err;
  EXPECT_THAT(moved.out, HasSubstr("after step 4"));
  EXPECT_THAT(moved.err, Not(HasSubstr("warning")));
}

TEST_F(Resume, TextThatWasRemovedIsReadFromItsStore) {
  ASSERT_EQ(train({"--training.stop_at", "4"}).code, 0);
  fs::remove_all(folder_.path("corpus"));
  const ProgramResult result = train({"--training.stop_at", "5"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("is gone; going on with"));
  EXPECT_THAT(result.err, Not(HasSubstr("warning")));
  EXPECT_EQ(run_program({"eval", folder_.path("run")}).code, 0);
  const ProgramResult other = train({"--data.train", folder_.path("corpu")});
  EXPECT_EQ(other.code, 2) << other.err;
}

TEST_F(Resume, AMovedRunIsEvaluatedWhereItLies) {
  ASSERT_EQ(train({"--training.stop_at", "4"}).code, 0);
  fs::rename(folder_.path("run"), folder_.path("moved"));
  ASSERT_EQ(run_program({"eval", folder_.path("moved")}).code, 0);
  EXPECT_FALSE(fs::exists(folder_.path("run")));
}

TEST_F(Resume, AFolderThatVanishesEndsTheRun) {
  // Each step is saved, so that the folder goes at any point of that too.
  const RunningProgram program =
      start_program({"train", config_, "--training.steps", "100000", "--checkpoint.interval", "1"}, folder_);
  while (losses(folder_.path("run")).size() < 3) usleep(20000);
  fs::rename(folder_.path("run"), folder_.path("elsewhere"));
  const ProgramResult result = wait_program(program);
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("run: was removed or renamed while the run was writing to it\n"));
  EXPECT_FALSE(fs::exists(folder_.path("run/checkpoint")));
}

TEST_F(Resume, ANameThatIsNoUtf8IsRefused) {
  const ProgramResult result = train({"--job.dump_folder", folder_.path("lat\xe9")});
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.err, HasSubstr("--job.dump_folder: expected UTF-8"));
  EXPECT_FALSE(fs::exists(folder_.path("lat\xe9")));
}

}  // namespace
}  // namespace longreach::test
