// Losses, gradients, updates and checkpoints that are not finite: what is kept, to the bit, and how a run
// ends.
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "checkpoints/checkpoint.h"
#include "tests/support/program.h"
#include "tests/support/run_folders.h"
#include "tests/support/tiny_run.h"

namespace longreach::test {
namespace {

using Words = std::vector<std::string>;

class NonFinite : public testing::Test {
 protected:
  // A learning rate that breaks the model at once: the loss and the gradient of step 1 are finite, its update
  // is not.
  ProgramResult run(const std::string& policy, const Words& more = {}) {
    Words words{"--optimizer.lr",
                "1e38",
                "--lr_scheduler.warmup_steps",
                "0",
                "--lr_scheduler.decay_type",
                "constant",
                "--training.max_norm",
                "0",
                "--training.nonfinite",
                policy,
                "--job.dump_folder",
                folder_.path(policy)};
    words.insert(words.end(), more.begin(), more.end());
    return train(write_tiny_run(folder_), words);
  }
  // Parameters and the optimizer's state of a checkpoint.
  std::string bits(const std::string& run, int64_t step) const {
    return read_text(step_folder(folder_, run, step) + "/model-00000.safetensors") +
           read_text(step_folder(folder_, run, step) + "/optimizer-00000.safetensors");
  }
  // What the model was before any step.
  std::string first_bits() {
    const ProgramResult result =
        train(write_tiny_run(folder_), {"--training.nonfinite", "rollback", "--training.stop_at", "1",
                                        "--job.dump_folder", folder_.path("first")});
    EXPECT_EQ(result.code, 0) << result.err;
    return bits("first", 0);
  }
  TemporaryFolder folder_;
};

TEST_F(NonFinite, StopNamesTheStepAndKeepsACheckpoint) {
  const ProgramResult result = run("stop");
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.err.find("step 1"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("the update at learning rate 1e+38 is not finite"), std::string::npos)
      << result.err;
  EXPECT_TRUE(bits("stop", 0) == first_bits());
}

TEST_F(NonFinite, SkipLeavesParametersUntouchedAndGivesUp) {
  const ProgramResult result = run("skip");
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.err.find("step 5"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("number 5 in a row (training.max_bad_steps = 5)"), std::string::npos)
      << result.err;
  EXPECT_TRUE(bits("skip", 4) == first_bits());
}

TEST_F(NonFinite, SkipGoesOnAsLongAsItMay) {
  const ProgramResult result = run("skip", {"--training.max_bad_steps", "13"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_TRUE(bits("skip", 4) == first_bits());
  EXPECT_TRUE(bits("skip", 12) == first_bits());
}

TEST_F(NonFinite, RollbackReturnsToTheLastGoodCheckpointAndGivesUp) {
  const ProgramResult result = run("rollback", {"--training.max_bad_steps", "3"});
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.out.find("rolled back to step 0"), std::string::npos) << result.out;
  EXPECT_NE(result.err.find("step 3"), std::string::npos) << result.err;
  EXPECT_TRUE(bits("rollback", 0) == first_bits());
  EXPECT_TRUE(bits("rollback", 2) == first_bits());
}

// A poisoned tensor in a checkpoint whose checksums are right is no model.
TEST_F(NonFinite, ACheckpointThatHoldsANanIsRefusedByName) {
  ASSERT_EQ(train(write_tiny_run(folder_), {"--training.stop_at", "2"}).code, 0);
  CheckpointContents contents = load_checkpoint(step_folder(folder_, "run", 2));
  contents.model[1].second = contents.model[1].second.clone();
  contents.model[1].second.view(-1)[3] = std::numeric_limits<float>::quiet_NaN();
  std::filesystem::create_directory(folder_.path("poisoned"));
  save_checkpoint(folder_.path("poisoned/checkpoint"), contents);
  const ProgramResult resumed =
      train(write_tiny_run(folder_), {"--job.dump_folder", folder_.path("poisoned")});
  EXPECT_EQ(resumed.code, 2);
  EXPECT_NE(resumed.err.find(contents.model[1].first + " holds a NaN"), std::string::npos) << resumed.err;
  const ProgramResult tuned =
      train(write_tiny_run(folder_), {"--job.task", "finetune", "--checkpoint.initial_load_path",
                                      folder_.path("poisoned"), "--job.dump_folder", folder_.path("tuned")});
  EXPECT_EQ(tuned.code, 2);
  EXPECT_NE(tuned.err.find("checkpoint.initial_load_path"), std::string::npos) << tuned.err;
}

}  // namespace
}  // namespace longreach::test
