// The main job through the program itself: train, stop, resume, evaluate, generate.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cmath>

#include "tests/support/program.h"
#include "tests/support/run_folders.h"
#include "tests/support/tiny_run.h"

namespace longreach::test {
namespace {

using Words = std::vector<std::string>;

TEST(Train, LearnsEvaluatesAndGenerates) {
  const TemporaryFolder folder;
  const std::string config = write_tiny_run(folder);
  const ProgramResult result =
      train(config, {"--training.steps", "60", "--validation.final", "true", "--validation.ngram", "true",
                     "--validation.freq", "30", "--sample.tokens", "20", "-v"});
  ASSERT_EQ(result.code, 0) << result.err;
  for (const char* stage : {"tokenizer: ", "data: ", "evaluation after step 30: ", "checkpoint of step 60: "})
    EXPECT_NE(result.err.find(stage), std::string::npos) << result.err;
  const auto loss = losses(folder.path("run"));
  ASSERT_EQ(loss.size(), 60u);
  EXPECT_NEAR(loss.at(1), std::log(257.0), 0.5);
  EXPECT_LT(loss.at(60), 0.75 * loss.at(1));
  const size_t counting = result.out.find("counting   the bytes of the training text");
  EXPECT_LT(counting, result.out.find("order-2 byte n-gram"));

  const ProgramResult evaluated =
      run_program({"eval", folder.path("run"), "--json", folder.path("eval.json")});
  ASSERT_EQ(evaluated.code, 0) << evaluated.err;
  EXPECT_NE(read_text(folder.path("eval.json")).find("\"bits_per_byte\""), std::string::npos);

  const Words sample = {"generate", folder.path("run"), "--prompt", "the sea ", "--max-new-tokens",
                        "24",       "--seed",           "3"};
  const ProgramResult first = run_program(sample), second = run_program(sample);
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_EQ(first.out, second.out);
  EXPECT_EQ(first.out.rfind("the sea ", 0), 0u);
}

TEST(Train, WarnsOfAWarmUpLongerThanTheRun) {
  const TemporaryFolder folder;
  const std::string config = write_tiny_run(folder);
  const ProgramResult shorter = train(config, {"--lr_scheduler.warmup_steps", "8", "--training.steps", "2"});
  EXPECT_EQ(shorter.code, 0);
  EXPECT_THAT(
      shorter.err,
      testing::HasSubstr(
          "warning: lr_scheduler.warmup_steps = 8 is more than training.steps = 2: the learning rate ends "
          "at 25 % of "
          "optimizer.lr\n"));
}

TEST(Train, ResumesBitForBit) {
  const TemporaryFolder folder;
  const std::string config = write_tiny_run(folder);
  ASSERT_EQ(train(config).code, 0);
  const Words other = {"--job.dump_folder", folder.path("stopped")};
  Words stopped = other;
  stopped.insert(stopped.end(), {"--training.stop_at", "5"});
  const ProgramResult first = train(config, stopped);
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_EQ(losses(folder.path("stopped")).size(), 5u);
  const ProgramResult second = train(config, other);
  ASSERT_EQ(second.code, 0) << second.err;
  EXPECT_EQ(losses(folder.path("run")), losses(folder.path("stopped")));
  for (const char* shard : {"/model-00000.safetensors", "/optimizer-00000.safetensors"})
    EXPECT_EQ(read_text(step_folder(folder, "run", 12) + shard),
              read_text(step_folder(folder, "stopped", 12) + shard))
        << shard;
}

TEST(Train, FinetuningStartsFromTheCheckpointAndLearnsCompletions) {
  const TemporaryFolder folder;
  const std::string config = write_tiny_run(folder);
  ASSERT_EQ(train(config).code, 0);
  std::string lines;
  for (int i = 0; i < 200; ++i)
    lines += R"({"prompt": "the old ", "completion": "sea moves under a grey sky"})"
             "\n";
  folder.write("pairs.jsonl", lines);
  const ProgramResult result = train(
      config, {"--job.task", "finetune", "--checkpoint.initial_load_path", folder.path("run"),
               "--job.dump_folder", folder.path("tuned"), "--data.train",
               "['" + folder.path("pairs.jsonl") + "']", "--training.steps", "60", "--optimizer.lr", "1e-2"});
  ASSERT_EQ(result.code, 0) << result.err;
  const auto before = losses(folder.path("run")), after = losses(folder.path("tuned"));
  EXPECT_LT(after.at(1), before.at(1) - 0.3) << "it did not start from the checkpoint";
  EXPECT_LT(after.at(60), 0.25 * after.at(1));
}

TEST(Train, ASignalWritesACheckpointAndLeaves) {
  const TemporaryFolder folder;
  const std::string config = write_tiny_run(folder);
  const RunningProgram program = start_program(
      {"train", config, "--training.steps", "100000", "--checkpoint.interval", "100000"}, folder);
  while (losses(folder.path("run")).size() < 3) usleep(50000);
  kill(program.pid, SIGTERM);
  const ProgramResult result = wait_program(program);
  EXPECT_EQ(result.code, 143) << result.err;
  EXPECT_NE(result.out.find("interrupted after step"), std::string::npos);
  const auto last = losses(folder.path("run")).rbegin()->first;
  const ProgramResult again =
      train(config, {"--training.steps", "100000", "--training.stop_at", std::to_string(last + 1)});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(losses(folder.path("run")).rbegin()->first, last + 1);
}

TEST(Train, ADamagedCheckpointFallsBackToTheOneBefore) {
  const TemporaryFolder folder;
  const std::string config = write_tiny_run(folder);
  ASSERT_EQ(train(config, {"--training.stop_at", "8"}).code, 0);
  const std::string shard = step_folder(folder, "run", 8) + "/model-00000.safetensors";
  std::string bytes = read_text(shard);
  bytes[bytes.size() - 5] ^= 1;
  folder.write("run/checkpoint/step-00000008/model-00000.safetensors", bytes);
  const ProgramResult result = train(config);
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.err.find("step-00000008"), std::string::npos);
  EXPECT_NE(result.out.find("after step 4"), std::string::npos);
  EXPECT_EQ(losses(folder.path("run")).size(), 12u);
}

}  // namespace
}  // namespace longreach::test
