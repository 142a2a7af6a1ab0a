// The program among others: signals, standard streams that are closed or full, limits, and a second run in
// one folder.
#include <gmock/gmock.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "tests/support/program.h"
#include "tests/support/tiny_run.h"

namespace longreach::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Words = std::vector<std::string>;

// A shell script in which "$0" is the program.
Words shell(const std::string& script) { return {"sh", "-c", script, LONGREACH_PROGRAM}; }
ProgramResult run_shell(const std::string& script) { return run_command(shell(script)); }

// What was said on standard error, but for progress.
std::string said(const std::string& err) {
  std::istringstream lines(err);
  std::string rest;
  for (std::string line; std::getline(lines, line);)
    if (!line.starts_with("tokenizing ") && !line.starts_with("evaluating ")) rest += line + "\n";
  return rest;
}

void expect_one_error(const std::string& err) {
  const std::string words = said(err);
  EXPECT_THAT(words, StartsWith("error: "));
  EXPECT_EQ(std::count(words.begin(), words.end(), '\n'), 1) << words;
}

int64_t saved_step(const std::string& run) {
  int64_t newest = -1;
  if (!std::filesystem::exists(run + "/checkpoint")) return newest;
  for (const auto& entry : std::filesystem::directory_iterator(run + "/checkpoint"))
    newest = std::max<int64_t>(newest, std::stoll(entry.path().filename().string().substr(5)));
  return newest;
}

class Process : public testing::Test {
 protected:
  std::string run() const { return folder_.path("run"); }
  // A run that does not end by itself; returns when it has trained some steps.
  RunningProgram endless() const {
    const RunningProgram program = start_program(
        {"train", config_, "--training.steps", "1000000", "--checkpoint.interval", "1000000"}, folder_);
    while (losses(run()).size() < 3) ::usleep(20000);
    return program;
  }

  const TemporaryFolder folder_;
  const std::string config_ = write_tiny_run(folder_);
};

class StopSignal : public Process, public testing::WithParamInterface<int> {};

TEST_P(StopSignal, SavesAndExitsWith128AndItsNumber) {
  const RunningProgram program = endless();
  ::kill(program.pid, GetParam());
  const ProgramResult result = wait_program(program);
  EXPECT_EQ(result.code, 128 + GetParam()) << result.err;
  EXPECT_THAT(result.out, HasSubstr("interrupted after step"));
  EXPECT_EQ(saved_step(run()), losses(run()).rbegin()->first);
}

INSTANTIATE_TEST_SUITE_P(All, StopSignal, testing::Values(SIGTERM, SIGINT, SIGHUP, SIGUSR1));

TEST_F(Process, OneWishThatArrivesAsSeveralSignalsStillSaves) {
  const RunningProgram program = endless();
  for (const int signal : {SIGTERM, SIGHUP, SIGTERM, SIGINT}) ::kill(program.pid, signal);
  EXPECT_GE(wait_program(program).code, 128);
  EXPECT_GE(saved_step(run()), 3);
}

TEST_F(Process, NohupIsObeyed) {
  const RunningProgram program = start_command(
      shell("trap '' HUP; exec \"$0\" train " + config_ + " --training.steps 1000000"), folder_);
  while (losses(run()).size() < 3) ::usleep(20000);
  ::kill(program.pid, SIGHUP);
  const size_t steps = losses(run()).size();
  while (losses(run()).size() < steps + 3) ::usleep(20000);
  ::kill(program.pid, SIGTERM);
  EXPECT_EQ(wait_program(program).code, 128 + SIGTERM);
}

TEST_F(Process, ASignalWhileTokenizingEndsAtOnce) {
  folder_.write("corpus/long.txt", generated_prose(10'000'000, 3));
  const RunningProgram program = start_program({"train", config_}, folder_);
  const auto tokenizing = [&] {
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(run() + "/data", none))
      if (entry.path().string().find(".h5") != std::string::npos) return true;
    return false;
  };
  while (!tokenizing()) ::usleep(1000);
  ::kill(program.pid, SIGTERM);
  const ProgramResult result = wait_program(program);
  EXPECT_EQ(result.code, 128 + SIGTERM);
  EXPECT_THAT(result.out, Not(HasSubstr("interrupted after step 0"))) << "it tokenized to the end first";
  EXPECT_EQ(run_program({"train", config_, "--training.stop_at", "1"}).code, 0);
}

TEST_F(Process, ASecondRunInTheFolderIsRefused) {
  const RunningProgram first = endless();
  const ProgramResult second = run_program({"train", config_});
  EXPECT_EQ(second.code, 2);
  EXPECT_THAT(second.err, StartsWith("error: job.dump_folder: " + run() + ": in use by process " +
                                     std::to_string(first.pid) + " on host "));
  ::kill(first.pid, SIGKILL);
  wait_program(first);
  for (const auto& [step, loss] : losses(run())) EXPECT_GT(loss, 0) << step;  // no line of the second
  const ProgramResult third = run_program({"train", config_, "--training.stop_at", "1"});
  EXPECT_EQ(third.code, 0) << third.err;
}

TEST_F(Process, ClosedStreamsLeadNowhere) {
  const ProgramResult result = run_shell("\"$0\" train " + config_ + " <&- >&- 2>&-");
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(losses(run()).size(), 12u);  // every line of metrics.jsonl parses
  EXPECT_EQ(saved_step(run()), 12);
}

TEST_F(Process, AFullStandardOutputFailsTheRunAtItsEnd) {
  const ProgramResult result = run_shell("\"$0\" train " + config_ + " > /dev/full");
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(said(result.err), "error: standard output could not be written\n");
  EXPECT_EQ(saved_step(run()), 12);
}

TEST_F(Process, ReadersThatLeaveDoNotEndTheRun) {
  run_shell("(\"$0\" train " + config_ + "; echo $? > " + folder_.path("code") + ") 2>/dev/null | head -n 1");
  EXPECT_EQ(saved_step(run()), 12);
  EXPECT_EQ(read_text(folder_.path("code")), "1\n");
}

TEST_F(Process, EveryVerbFailsWhereItsOutputIsLost) {
  ASSERT_EQ(run_program({"train", config_, "--training.steps", "1"}).code, 0);
  for (const std::string words : {"--help", "--version", "help", "train --help", "info", "info dense",
                                  "verify --help", "bench --list", "plot --help", "data inspect --help"}) {
    const ProgramResult result = run_shell("exec \"$0\" " + words + " > /dev/full");
    EXPECT_EQ(result.code, 1) << words;
    EXPECT_EQ(result.err, "error: standard output could not be written\n") << words;
  }
  for (const std::string words : {"eval --rows 2 ", "generate "}) {
    const ProgramResult result = run_shell("exec \"$0\" " + words + run() + " > /dev/full");
    EXPECT_EQ(result.code, 1) << words << result.err;
    EXPECT_EQ(said(result.err), "error: standard output could not be written\n") << words;
  }
  const ProgramResult quiet = run_shell("\"$0\" generate " + run() + " --max-new-tokens 100 | head -c 1");
  EXPECT_EQ(quiet.out.size(), 1u);
  EXPECT_EQ(quiet.err, "") << "a reader that has enough is no error";
}

// Under `ulimit -f` (in blocks of 512 bytes) no verb is ended by a signal: the write fails, in one line.
class FileLimit : public Process {
 protected:
  void expect_one_line(int blocks, const std::string& words) const {
    const std::string code = folder_.path("code");
    const ProgramResult result = run_shell("{ (ulimit -f " + std::to_string(blocks) + "; exec \"$0\" " +
                                           words + " 2>&1 >/dev/null); echo $? > " + code + "; } | cat");
    SCOPED_TRACE(words + ", blocks: " + std::to_string(blocks));
    EXPECT_THAT(read_text(code), testing::AnyOf("1\n", "2\n"));
    expect_one_error(result.out);
  }
};

TEST_F(FileLimit, TrainSaysWhatCouldNotBeWritten) {
  for (const int blocks : {0, 8, 40, 200}) expect_one_line(blocks, "train " + config_);
}

// With too little address space for LibTorch's initialisers, then for its threads, then for the work: no
// abort, no thread that is waited for without end.
TEST_F(Process, LittleMemoryIsAnErrorOfOneLine) {
  const auto limited = [](int64_t megabytes, const std::string& words) {
    return run_shell("ulimit -v " + std::to_string(megabytes * 1024) +
                     "; ulimit -c 0; exec timeout -s KILL 120 \"$0\" " + words);
  };
  const int64_t step = 40;
  int64_t megabytes = 200;  // until the system can load the libraries
  while (limited(megabytes, "--version").code == 127) megabytes += step;
  int failed = 0;
  for (const int64_t end = megabytes + 5 * step; megabytes < end; megabytes += step) {
    const ProgramResult result = limited(
        megabytes,
        "train " + config_ +
            " --training.threads 2 --training.steps 1 --lr_scheduler.warmup_steps 0 --job.dump_folder " +
            folder_.path(std::to_string(megabytes)));
    SCOPED_TRACE(std::to_string(megabytes) + " MB");
    if (result.code == 0) continue;
    ++failed;
    EXPECT_EQ(result.code, 1) << result.err;
    expect_one_error(result.err);
  }
  EXPECT_GT(failed, 0);
}

}  // namespace
}  // namespace longreach::test
