// `launch`: what it refuses, and a run of one rank. Ranks themselves are tested in tests/distributed.
#include <gmock/gmock.h>
#include <signal.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "core/error.h"
#include "tests/support/errors.h"
#include "tests/support/program.h"
#include "tests/support/tiny_run.h"
#include "train/program/verbs.h"

namespace longreach {
namespace {

using namespace test;
using ::testing::HasSubstr;

void expect_refused(const std::string& part, const Arguments& arguments) {
  expect_error<UserError>(part, [&] { launch_verb(arguments); });
}

TEST(Launch, SaysWhatIsWrong) {
  for (const char* number : {"0", "-1", "1e9", "two", "4097", "2.5"})
    expect_refused(text("--nproc: expected a whole number from 1 to 4096, found `", number, "`"),
                   {text("--nproc=", number), "train", "x"});
  expect_refused("--max-restarts: expected a whole number from 0 to 1000, found `-1`",
                 {"-n", "2", "--max-restarts", "-1", "train", "x"});
  expect_refused("--nproc is required", {"train", "x"});
  expect_refused("a verb is missing; those that run on ranks: train", {"--nproc", "2"});
  expect_refused("launch: --stpes is no option", {"--nproc", "2", "--stpes", "train"});
  expect_refused("`generate` does not run on ranks, start it without `launch`", {"-n", "2", "generate", "x"});
  expect_refused("`launch` does not run on ranks", {"-n", "2", "launch", "-n", "2", "train", "x"});
  expect_refused("did you mean `train`?", {"-n2", "trian", "x"});
}

TEST(Launch, ARankStartsNoRanks) {
  const auto with = [](const std::vector<std::pair<const char*, const char*>>& variables, const auto& look) {
    for (const auto& [name, value] : variables) setenv(name, value, 1);
    look();
    for (const auto& [name, value] : variables) unsetenv(name);
  };
  const Arguments words = {"-n", "2", "train", "x"};
  with({{"RANK", "0"}, {"WORLD_SIZE", "1"}},
       [&] { expect_refused("this process is rank 0 of 1 already", words); });
  with({{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "2"}},
       [&] { expect_refused("this process is rank 1 of 2 already", words); });
  with({{"RANK", "0"}}, [&] { expect_refused("RANK is set and WORLD_SIZE is not", words); });
}

TEST(Launch, HelpOfTheVerbIsItsOwn) {
  const ProgramResult own = run_program({"train", "--help"}),
                      launched = run_program({"launch", "--nproc", "3", "train", "--help"});
  EXPECT_EQ(launched.code, 0);
  EXPECT_EQ(launched.out, own.out);
  EXPECT_EQ(launched.err, "");
}

class LaunchedRun : public testing::Test {
 protected:
  TemporaryFolder folder_;
  std::string config_ = write_tiny_run(folder_);
};

TEST_F(LaunchedRun, OneRankTrainsAsWithoutLaunch) {
  ASSERT_EQ(train(config_, {"--job.dump_folder", folder_.path("alone"), "--training.steps", "3"}).code, 0);
  const ProgramResult launched =
      run_program({"launch", "--nproc", "1", "--", "train", config_, "--training.steps", "3"});
  EXPECT_EQ(launched.code, 0) << launched.err;
  EXPECT_EQ(losses(folder_.path("run")), losses(folder_.path("alone")));
  EXPECT_EQ(losses(folder_.path("run")).size(), 3u);
}

TEST_F(LaunchedRun, EndsWithTheCodeOfItsRank) {
  const ProgramResult launched =
      run_program({"launch", "--nproc=1", "--max-restarts=3", "train", config_, "--training.steps", "none"});
  EXPECT_EQ(launched.code, 2);
  EXPECT_EQ(launched.err, "error: --training.steps: expected an integer >= 1, found a string\n");
}

TEST_F(LaunchedRun, AStoppedRunIsSavedAndNotBegunAnew) {
  const RunningProgram running = start_program(
      {"launch", "-n", "1", "--max-restarts", "3", "train", config_, "--training.steps", "1000000"}, folder_);
  const std::string metrics = folder_.path("run/metrics.jsonl");
  while (read_text(metrics).empty()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  ::kill(running.pid, SIGTERM);
  const ProgramResult stopped = wait_program(running);
  EXPECT_EQ(stopped.code, 128 + SIGTERM) << stopped.err;
  EXPECT_THAT(stopped.err, testing::Not(HasSubstr("restarting")));
  EXPECT_FALSE(std::filesystem::is_empty(folder_.path("run/checkpoint")));
}

}  // namespace
}  // namespace longreach
