// What a run of several ranks does when something goes wrong on one of them ([fault] inject).
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoints/checkpoint.h"
#include "core/error.h"
#include "tests/end_to_end/launch_fixture.h"
#include "tests/support/files.h"
#include "tests/support/run_folders.h"

namespace longreach::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class Fault : public Launch {
 protected:
  RunningProgram start(int ranks, const std::string& fault, const Words& more = {}) const {
    Words overrides = {"--fault.inject", fault};
    overrides.insert(overrides.end(), more.begin(), more.end());
    return start_program(words(ranks, fault, overrides), folder_);
  }
};

std::string last_line(const std::string& text) {
  const size_t end = text.find_last_not_of('\n');
  return end == std::string::npos ? "" : text.substr(text.rfind('\n', end) + 1, end - text.rfind('\n', end));
}

// Whoever is lost, the others say who, and so does the launcher at the end.
TEST_F(Fault, AKilledRankIsNamedByAll) {
  std::vector<RunningProgram> runs;
  for (const int lost : {0, 1, 2}) runs.push_back(start(3, text("kill:rank=", lost, ":step=3")));
  for (const int lost : {0, 1, 2}) {
    SCOPED_TRACE(lost);
    const ProgramResult result = wait_program(runs[static_cast<size_t>(lost)]);
    EXPECT_EQ(result.code, 128 + SIGKILL);
    EXPECT_EQ(lines_with(result.err, text("error: rank ", lost, " did not come to \"")), 2u) << result.err;
    EXPECT_EQ(last_line(result.err), text("error: rank ", lost, " was killed by signal 9 (Killed)"));
  }
}

TEST_F(Fault, ARankThatEndsIsNamedByAll) {
  std::vector<RunningProgram> runs;
  for (const int lost : {0, 1}) runs.push_back(start(2, text("exit:rank=", lost, ":step=3")));
  for (const int lost : {0, 1}) {
    SCOPED_TRACE(lost);
    const ProgramResult result = wait_program(runs[static_cast<size_t>(lost)]);
    EXPECT_EQ(result.code, 3);
    EXPECT_EQ(lines_with(result.err, text("error: rank ", lost, " did not come to \"")), 1u) << result.err;
    EXPECT_EQ(last_line(result.err), text("error: rank ", lost, " ended with code 3"));
  }
}

TEST_F(Fault, ARankThatStandsStillIsNamedByAll) {
  std::vector<RunningProgram> runs;
  for (const int lost : {0, 1})
    runs.push_back(start(2, text("stop:rank=", lost, ":step=3"), {"--comm.train_timeout_seconds", "8"}));
  for (const int lost : {0, 1}) {
    SCOPED_TRACE(lost);
    const ProgramResult result = wait_program(runs[static_cast<size_t>(lost)]);
    EXPECT_EQ(result.code, 1);
    EXPECT_THAT(result.err, HasSubstr(text("error: rank ", lost, " did not come to \"")));
    EXPECT_THAT(result.err, HasSubstr("within 8 s (comm.train_timeout_seconds)"));
    EXPECT_EQ(last_line(result.err),
              text("error: rank ", lost, " stood still (signal 19); rank ", 1 - lost, " ended with code 1"));
  }
}

// It sleeps much longer than a step takes.
TEST_F(Fault, ASlowRankIsNamedInTheMetrics) {
  const ProgramResult result =
      train(2, "run", {"--fault.inject", "slow:rank=1:step=3:ms=5000", "--training.steps", "3"});
  ASSERT_EQ(result.code, 0) << result.err;
  const MetricsLine line = read_metrics(folder_.path("run")).back();
  EXPECT_EQ(line.at("slowest_rank"), 1);
  EXPECT_GT(line.at("slowest_over_mean"), 1);
  EXPECT_LE(line.at("slowest_over_mean"), 2);
}

TEST_F(Fault, AFaultThatDoesNotFitIsRefused) {
  const auto expect = [&](const std::string& fault, const std::string& part) {
    const ProgramResult result = train(2, "bad", {"--fault.inject", fault});
    EXPECT_EQ(result.code, 2) << fault;
    EXPECT_THAT(result.err, HasSubstr(part));
    EXPECT_FALSE(std::filesystem::exists(folder_.path("bad")));
  };
  expect("kil:rank=1:step=7", "fault.inject: `kil:rank=1:step=7`, expected KIND:rank=R:step=S");
  expect("kill:rank=2:step=7", "fault.inject: rank=2 of 2 ranks, expected less than 2");
}

// The faults strike in the first attempt alone, and the second goes on from the checkpoint of step 4.
TEST_F(Fault, StartedAgainTheRunIsTheOneThatWasNotKilled) {
  ASSERT_EQ(train(2, "whole").code, 0);
  for (const char* fault : {"kill:rank=0:step=7", "kill:rank=1:step=7"}) {
    SCOPED_TRACE(fault);
    const ProgramResult result = train(2, fault, {"--fault.inject", fault}, {"--max-restarts", "2"});
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(lines_with(result.err, "restarting ("), 1u) << result.err;
    EXPECT_THAT(result.out, HasSubstr("after step 4"));
    expect_same_run("whole", fault);
  }
}

// A loss of one rank that is no number is none of all ranks: they act as one rank does, at the same step.
class NanFault : public Fault {
 protected:
  // On 2 ranks, and on one that trains as much.
  ProgramResult train_both(const std::string& policy, const char* zero_stage) const {
    const Words more = {"--training.nonfinite", policy, "--checkpoint.interval", "2"};
    Words several = {"--fault.inject",
                     "nan:rank=1:step=7",
                     "--training.gradient_accumulation_steps",
                     "1",
                     "--parallel.zero_stage",
                     zero_stage},
          alone = {"--fault.inject", "nan:rank=0:step=7"};
    for (Words* words : {&several, &alone}) words->insert(words->end(), more.begin(), more.end());
    const ProgramResult one = train(1, policy + "-alone", alone), result = train(2, policy, several);
    EXPECT_EQ(result.code, one.code) << result.err;
    EXPECT_EQ(steps_of(policy), steps_of(policy + "-alone"));
    EXPECT_TRUE(tensors(policy) == tensors(policy + "-alone"));
    return result;
  }
  std::vector<int64_t> steps_of(const std::string& run) const {
    std::vector<int64_t> steps;
    for (const auto& [step, loss] : losses(folder_.path(run))) steps.push_back(step);
    return steps;
  }
  std::string log_of_rank_1(const std::string& run) const {
    return read_text(folder_.path(run + "/ranks/rank-1.log"));
  }
};

TEST_F(NanFault, StopsAllRanks) {
  const ProgramResult result = train_both("stop", "2");
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(lines_with(result.err, "error: step 7: loss nan"), 2u) << result.err;
  EXPECT_THAT(newest_checkpoint("stop"), HasSubstr("step-00000006"));
}

TEST_F(NanFault, IsSkippedByAllRanks) {
  const ProgramResult result = train_both("skip", "1");
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(lines_with(result.err, "warning: step 7: loss nan"), 1u) << result.err;
  EXPECT_EQ(lines_with(log_of_rank_1("skip"), "warning: step 7: loss nan"), 1u);
  ASSERT_EQ(train(2, "refused",
                  {"--fault.inject", "nan:rank=1:step=7", "--training.nonfinite", "skip",
                   "--checkpoint.interval", "1", "--training.stop_at", "7"})
                .code,
            0);
  EXPECT_TRUE(tensors_of(step_folder(folder_, "refused", 6)) ==
              tensors_of(step_folder(folder_, "refused", 7)));
}

TEST_F(NanFault, RollsAllRanksBack) {
  const ProgramResult result = train_both("rollback", "3");
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(lines_with(result.out, "rolled back to step 6"), 1u) << result.out;
  EXPECT_EQ(lines_with(log_of_rank_1("rollback"), "rolled back to step 6"), 1u) << log_of_rank_1("rollback");
}

TEST_F(Fault, ARankThatIsAskedToStopStopsAllAndNobodyStartsThemAgain) {
  ASSERT_EQ(train(2, "whole").code, 0);
  const ProgramResult result =
      train(2, "run", {"--fault.inject", "term:rank=1:step=6"}, {"--max-restarts", "2"});
  EXPECT_EQ(result.code, 128 + SIGTERM) << result.err;
  EXPECT_THAT(result.out, HasSubstr("interrupted after step 6"));
  EXPECT_THAT(result.err, Not(HasSubstr("restarting")));
  EXPECT_EQ(newest_checkpoint("run"), step_folder(folder_, "run", 6));
  const ProgramResult rest = train(2, "run");
  EXPECT_EQ(rest.code, 0) << rest.err;
  EXPECT_THAT(rest.out, AllOf(HasSubstr("after step 6"), Not(HasSubstr("changed  "))));
  expect_same_run("whole", "run");
}

// Rank 1 sleeps, so that the first signal is not obeyed. Those that come within a second of it are the same
// wish.
TEST_F(Fault, ASecondSignalEndsAllAtOnce) {
  const RunningProgram program = start(2, "slow:rank=1:step=3:ms=10000000");
  wait_for_step("slow:rank=1:step=3:ms=10000000", 2);
  siginfo_t ended{};
  while (::waitid(P_PID, static_cast<id_t>(program.pid), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         ended.si_pid == 0) {
    ::kill(program.pid, SIGTERM);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  EXPECT_EQ(wait_program(program).code, 128 + SIGTERM);
  EXPECT_FALSE(std::filesystem::exists(folder_.path("slow:rank=1:step=3:ms=10000000/checkpoint")));
}

// One place by name, and two texts: ranks of two machines whose copies differ.
TEST_F(Fault, RanksThatReadOtherTextAreRefused) {
  const int port = 20000 + ::getpid() % 12000;
  std::vector<RunningProgram> ranks;
  for (const int rank : {0, 1}) {
    const std::string place = text("machine-", rank);
    folder_.write(place + "/corpus/one.txt", generated_prose(20000, static_cast<uint64_t>(rank)));
    ranks.push_back(
        start_rank(rank, {port}, {"--data.train", "[\"corpus\"]"}, {"env", "-C", folder_.path(place)}));
  }
  for (const RunningProgram& rank : ranks) {
    const ProgramResult result = wait_program(rank);
    EXPECT_EQ(result.code, 2);
    EXPECT_THAT(result.err, AllOf(HasSubstr("error: ranks differ in their data: rank 0 has train/0/"),
                                  HasSubstr(", rank 1 has train/0/")));
  }
}

TEST_F(Fault, ASecondJobOfTheSameRunIsRefused) {
  const RunningProgram first = start_program(words(2, "run", {"--training.steps", "100000"}), folder_);
  wait_for_step("run", 1);
  const ProgramResult second = train(2, "run");
  EXPECT_EQ(second.code, 2);
  EXPECT_EQ(lines_with(second.err, "job.dump_folder: " + folder_.path("run")), 1u) << second.err;
  ::kill(first.pid, SIGTERM);
  EXPECT_EQ(wait_program(first).code, 128 + SIGTERM);
}

// Where one rank cannot save, all end as one rank does, and the old checkpoint is what they go on from.
TEST_F(Fault, AFullDiskLeavesTheOldCheckpoint) {
  ASSERT_EQ(train(2, "whole").code, 0);
  const ProgramResult result = train(2, "run", {"--fault.inject", "disk_full:rank=0:step=6"});
  EXPECT_EQ(result.code, 2) << result.err;
  EXPECT_EQ(lines_with(result.err, "error: " + folder_.path("run") + "/checkpoint"), 1u) << result.err;
  EXPECT_THAT(last_line(result.err), HasSubstr("/checkpoint"));  // which rank came first says nothing
  EXPECT_EQ(newest_checkpoint("run"), step_folder(folder_, "run", 4));
  const ProgramResult rest = train(2, "run");
  EXPECT_EQ(rest.code, 0) << rest.err;
  EXPECT_THAT(rest.out, HasSubstr("after step 4"));
  expect_same_run("whole", "run");
}

TEST_F(Fault, ADamagedCheckpointIsPassedOverByAllRanks) {
  ASSERT_EQ(train(2, "whole").code, 0);
  ASSERT_EQ(train(2, "run", {"--training.stop_at", "8"}).code, 0);
  const std::string damaged = step_folder(folder_, "run", 8);
  flip_bit(damaged + "/optimizer-00000.safetensors", 20000);
  const ProgramResult rest = train(2, "run");
  EXPECT_EQ(rest.code, 0) << rest.err;
  EXPECT_EQ(lines_with(rest.err, damaged), 1u) << rest.err;
  EXPECT_THAT(read_text(folder_.path("run/ranks/rank-1.log")), Not(HasSubstr(damaged)));
  EXPECT_THAT(rest.out, HasSubstr("after step 4"));
  expect_same_run("whole", "run");
}

TEST_F(Fault, TextThatIsCutShortEndsAllRanks) {
  const Words options = {"--data.train",
                         text("[\"", folder_.write("long.txt", generated_prose(4000000, 1)), "\"]"),
                         "--training.steps",
                         "100000",
                         "--comm.train_timeout_seconds",
                         "30"};
  const RunningProgram program = start(2, "slow:rank=1:step=1:ms=20", options);
  wait_for_step("slow:rank=1:step=1:ms=20", 3);
  const std::string data = folder_.path("slow:rank=1:step=1:ms=20/data");
  for (const auto& entry : std::filesystem::directory_iterator(data))
    if (entry.path().extension() == ".h5") std::filesystem::resize_file(entry.path(), 20000);
  const ProgramResult result = wait_program(program);
  EXPECT_EQ(result.code, 2) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("error: " + data), HasSubstr("it was cut short")));
}

TEST_F(Fault, NamesWithSpacesAndLettersOfAllKindsAreNames) {
  const std::string run = "zwei Läufe, дважды/run 1";
  ASSERT_EQ(train(2, run, {"--training.stop_at", "4"}).code, 0);
  const ProgramResult rest = train(2, run, {"--training.stop_at", "5"});
  EXPECT_EQ(rest.code, 0) << rest.err;
  EXPECT_THAT(rest.out, HasSubstr("after step 4"));
}

// Ranks are killed at one point of a save after the other, and each run goes on from what the one before
// left, with old checkpoints to be deleted. Point K is struck in run K % 4, so that the waits of survivors
// for those that are lost overlap.
class KilledSaves : public Fault {
 protected:
  static constexpr int kRuns = 4;

  struct Kill {
    int rank;
    Words options;
    int64_t points;  // that rank's share of a save has more
  };
  static std::string name(int64_t point) { return text("run-", point % kRuns); }
  RunningProgram start_to(int64_t step, int64_t point, const Kill& kill) const {
    Words options = {"--fault.inject",
                     text("kill:rank=", kill.rank, ":step=", step, ":write=", point),
                     "--checkpoint.interval",
                     "1",
                     "--checkpoint.keep_latest_k",
                     "2",
                     "--training.stop_at",
                     text(step)};
    options.insert(options.end(), kill.options.begin(), kill.options.end());
    return start_program(words(2, name(point), options), folder_);
  }
  // Whether the program was killed: then what is there is whole, and of this step or the one before.
  bool expect_whole(const ProgramResult& result, int64_t step, int64_t point, int killed) const {
    EXPECT_EQ(result.err.find("warning"), std::string::npos) << result.err;
    const auto kept = list_checkpoints(folder_.path(name(point) + "/checkpoint"));
    for (const auto& [at, path] : kept) EXPECT_NO_THROW(load_checkpoint(path));
    const int64_t newest = kept.empty() ? 0 : kept.back().first;
    if (result.code == 0) {
      EXPECT_EQ(newest, step);
      EXPECT_EQ(kept.size(), static_cast<size_t>(std::min<int64_t>(2, step)));
      return false;
    }
    EXPECT_EQ(result.code, 128 + SIGKILL) << result.err;
    EXPECT_THAT(result.err, HasSubstr(text("error: rank ", killed, " did not come to \"")));
    EXPECT_THAT(newest, testing::AnyOf(step - 1, step));
    return true;
  }
  void expect_runs_go_on(const Kill& kill) const {
    int64_t step = 0, points = 0;
    for (bool any = true; any;) {
      ++step;
      any = false;
      std::vector<RunningProgram> running;
      for (int run = 0; run < kRuns; ++run) running.push_back(start_to(step, points + run + 1, kill));
      for (const RunningProgram& program : running)
        any = expect_whole(wait_program(program), step, ++points, kill.rank) || any;
    }
    EXPECT_GT(points - kRuns, kill.points);
    ASSERT_EQ(train(2, "whole", {"--training.stop_at", text(step)}).code, 0);
    for (int run = 0; run < kRuns; ++run) expect_same_run("whole", text("run-", run));
  }
};

// Which writes all.
TEST_F(KilledSaves, LeaveWhatTheRunGoesOnFrom) {
  expect_runs_go_on({.rank = 0, .options = {"--parallel.zero_stage", "0"}, .points = 16});
}

TEST_F(KilledSaves, SoDoThoseOfSharesWhereTheFirstRankIsKilled) {
  expect_runs_go_on({.rank = 0, .options = {}, .points = 16});
}

TEST_F(KilledSaves, SoDoThoseOfSharesWhereAnotherIsKilled) {
  expect_runs_go_on({.rank = 1, .options = {}, .points = 4});
}

TEST_F(KilledSaves, SoDoThoseBesideTraining) {
  expect_runs_go_on({.rank = 0, .options = {"--checkpoint.async_mode", "async"}, .points = 16});
}

// Rank 0 is refused by the folder as an ordinary user is.
TEST_F(Fault, AFolderThatCannotBeWrittenLeavesTheOldCheckpoint) {
  ASSERT_EQ(train(2, "whole").code, 0);
  const std::string checkpoints = folder_.path("run/checkpoint");
  const auto run_as_user = [&] {
    Words all, run = words(2, "run", {});
    if (::getuid() == 0) all = {"setpriv", "--bounding-set", "-dac_override"};
    all.emplace_back(LONGREACH_PROGRAM);
    all.insert(all.end(), run.begin(), run.end());
    return run_command(all);
  };
  ASSERT_EQ(train(2, "run", {"--training.stop_at", "4"}).code, 0);
  for (const std::string& refused : {checkpoints, folder_.path("run")}) {
    SCOPED_TRACE(refused);
    ::chmod(refused.c_str(), 0555);
    const ProgramResult result = run_as_user();
    EXPECT_EQ(result.code, 2) << result.err;
    EXPECT_THAT(result.err, HasSubstr(refused));
    EXPECT_EQ(newest_checkpoint("run"), step_folder(folder_, "run", 4));
    ::chmod(refused.c_str(), 0755);
  }
  EXPECT_EQ(run_as_user().code, 0);
  expect_same_run("whole", "run");
}

}  // namespace
}  // namespace longreach::test
