// The engines that sites run, themselves: whoever starts two ranks, they train what
// `longreach launch --nproc 2 train` trains.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <thread>

#include "core/error.h"
#include "tests/support/need_programs.h"
#include "tests/support/program.h"
#include "tests/support/tiny_run.h"

namespace longreach::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;
using Words = std::vector<std::string>;

Words operator+(Words all, const Words& more) {
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

std::string source(const std::string& path) { return LONGREACH_SOURCE_DIR "/" + path; }

void wait_for(const std::function<bool()>& condition) {
  while (!condition()) std::this_thread::sleep_for(std::chrono::milliseconds(100));
}

class Engine : public testing::Test {
 protected:
  Words run(const std::string& name, const Words& overrides = {}) const {
    return Words{config_, "--job.dump_folder", folder_.path(name)} + overrides;
  }
  // What one step after the other of `name` lost is what two ranks lose that `launch` starts.
  void expect_losses_of_launch(const std::string& name, const Words& overrides = {}) const {
    const ProgramResult launched =
        run_program(Words{"launch", "--nproc", "2", "train"} + run("launched-" + name, overrides));
    ASSERT_EQ(launched.code, 0) << launched.err;
    EXPECT_EQ(losses(folder_.path(name)), losses(folder_.path("launched-" + name)));
    EXPECT_GE(losses(folder_.path(name)).size(), 4u);
  }

  TemporaryFolder folder_;
  const std::string config_ = write_tiny_run(folder_);
};

class OpenMpi : public Engine {
 protected:
  void SetUp() override { need_programs({"mpirun"}, "openmpi-bin"); }
};

TEST_F(OpenMpi, RanksTrainWhatLaunchTrains) {
  // What a site's machines need not be told: that root may, and that there may be more ranks than cores.
  const ProgramResult result =
      run_command(Words{"env", "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                        "OMPI_MCA_rmaps_base_oversubscribe=1", std::string("LONGREACH=") + LONGREACH_PROGRAM,
                        source("configs/launch/mpirun.sh"), "2"} +
                  run("mpi"));
  ASSERT_EQ(result.code, 0) << result.err << result.out;
  EXPECT_THAT(result.out, HasSubstr("ranks      2, 2 on this machine"));
  expect_losses_of_launch("mpi");
}

// One Slurm for all that is asked of it, since its clock ticks every 30 s.
class Slurm : public Engine {
 protected:
  void SetUp() override {
    need_programs({"sbatch", "slurmctld", "slurmd", "munged", "setpriv"}, "slurm-wlm munge");
    if (IsSkipped() || HasFatalFailure()) return;
    const std::string ready = folder_.path("ready");
    slurm_ = start_command({source("tests/support/engines.sh"), folder_.path("slurm"), "sh", "-c",
                            "touch " + ready + "; exec sleep infinity"},
                           folder_);
    wait_for([&] { return fs::exists(ready) || ended(); });
    ASSERT_TRUE(fs::exists(ready)) << read_text(slurm_.err_file);
  }
  void TearDown() override {
    if (slurm_.pid <= 0) return;
    if (!ended()) ::kill(slurm_.pid, SIGTERM);
    wait_program(slurm_);
    const Words find = {"sh", "-c", "grep -lszF \"$0\" /proc/[0-9]*/environ",
                        folder_.path("slurm/slurm.conf")};
    EXPECT_EQ(run_command(find).out, "") << "left behind";
  }
  bool ended() const {
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(slurm_.pid), &info, WEXITED | WNOHANG | WNOWAIT);
    return info.si_pid != 0;
  }
  // Both nodes are this machine, and their names lead nowhere.
  ProgramResult ask(const Words& command) const {
    return run_command(Words{"env", "MASTER_ADDR=127.0.0.1", "SLURM_CONF=" + folder_.path("slurm/slurm.conf"),
                             std::string("LONGREACH=") + LONGREACH_PROGRAM} +
                       command);
  }
  // The job's number.
  std::string submit(const Words& words) const {
    const ProgramResult result = ask(Words{"sbatch", "--parsable"} + words);
    EXPECT_EQ(result.code, 0) << result.err;
    return result.out.substr(0, result.out.find('\n'));
  }
  // "R None", "PD BeginTime"; empty when it is over.
  std::string state(const std::string& job) const {
    return ask({"squeue", "-h", "-j", job, "-o", "%t %r"}).out;
  }

  bool trains(const std::string& name) const {
    const std::string metrics = folder_.path(name + "/metrics.jsonl");
    return fs::exists(metrics) && fs::file_size(metrics) > 0;
  }

  void a_step_trains_what_launch_trains() const;
  void without_an_address_all_ranks_are_refused() const;
  void a_script_without_srun_is_one_rank() const;
  void a_warned_job_goes_back_to_the_queue() const;

  RunningProgram slurm_;
};

void Slurm::a_step_trains_what_launch_trains() const {
  const ProgramResult result =
      ask(Words{"srun", "-N", "2", "--ntasks-per-node=1", LONGREACH_PROGRAM, "train"} + run("step"));
  ASSERT_EQ(result.code, 0) << result.err << result.out;
  EXPECT_THAT(result.out, HasSubstr("ranks      2, 1 on this machine"));
  expect_losses_of_launch("step");
}

// The nodes' names lead nowhere: no rank waits for another.
void Slurm::without_an_address_all_ranks_are_refused() const {
  const ProgramResult result = ask(Words{"srun", "-N", "2", "--ntasks-per-node=1", "env", "-u", "MASTER_ADDR",
                                         LONGREACH_PROGRAM, "train"} +
                                   run("nowhere"));
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.err, HasSubstr("ranks cannot meet at n1: "));
  EXPECT_THAT(result.err, HasSubstr("give every rank MASTER_ADDR=HOST"));
  EXPECT_FALSE(fs::exists(folder_.path("nowhere")));
}

// And it ends for good at USR1 when it was submitted so.
void Slurm::a_script_without_srun_is_one_rank() const {
  const std::string log = folder_.path("alone.log");
  const std::string script = folder_.write("alone.sh", "#!/bin/sh\nexec \"$LONGREACH\" train \"$@\"\n");
  const std::string job = submit(Words{"-N", "2", "-n", "2", "--no-requeue", "-o", log, script} +
                                 run("alone", {"--training.steps", "100000"}));
  wait_for([&] { return trains("alone") || state(job).empty(); });
  ASSERT_EQ(ask({"scancel", "--batch", "--signal=USR1", job}).code, 0);
  wait_for([&] { return state(job).empty(); });
  const std::string said = read_text(log);
  EXPECT_THAT(said, HasSubstr("Slurm job  " + job + "\n"));
  EXPECT_THAT(said, HasSubstr("interrupted after step"));
  EXPECT_THAT(said, HasSubstr("warning: Slurm's job " + job + " is not requeued: `scontrol requeue " + job +
                              "`: Requested operation is presently disabled"));
  EXPECT_THAT(said, Not(HasSubstr("ranks ")));
}

// The run's end is fixed when the job has gone back to the queue: it is warned after as many steps as it
// could do until then. Slurm lets it wait there for two minutes, which are cut short.
void Slurm::a_warned_job_goes_back_to_the_queue() const {
  const std::string log = folder_.path("job.log"), config = read_text(config_);
  const Words options = {"--training.steps", "100000", "--checkpoint.interval", "100000"};
  const std::string job = submit(
      Words{"--time=60", "--signal=USR1@90", "--output=" + log, source("configs/launch/slurm.sbatch")} +
      run("job", options));
  wait_for([&] { return trains("job") || state(job).empty(); });
  ASSERT_EQ(ask({"scontrol", "update", "JobId=" + job, "TimeLimit=2"}).code, 0);
  wait_for([&] { return state(job).find("BeginTime") != std::string::npos || state(job).empty(); });
  const auto before = losses(folder_.path("job"));
  ASSERT_THAT(read_text(log), HasSubstr("requeued   Slurm's job " + job));
  const size_t at = config.find("threads = 1\n");
  ASSERT_NE(at, std::string::npos);
  folder_.write("run.toml",
                std::string(config).insert(at, text("stop_at = ", before.rbegin()->first + 5, "\n")));
  ASSERT_EQ(ask({"scontrol", "update", "JobId=" + job, "StartTime=now"}).code, 0);
  wait_for([&] { return state(job).empty(); });
  EXPECT_THAT(read_text(log), HasSubstr("Slurm job  " + job + ", started again 1 time\n"));
  EXPECT_EQ(losses(folder_.path("job")).size(), before.size() + 5);
  expect_losses_of_launch("job", options);
}

TEST_F(Slurm, StepsAndJobs) {
  // The next tick is 30 s after the start: what is waiting for it comes last, and begins shortly before.
  const auto start = std::chrono::steady_clock::now();
  a_step_trains_what_launch_trains();
  without_an_address_all_ranks_are_refused();
  a_script_without_srun_is_one_rank();
  std::this_thread::sleep_until(start + std::chrono::seconds(25));
  a_warned_job_goes_back_to_the_queue();
}

}  // namespace
}  // namespace longreach::test
