// PyTorch's launcher, where `longreach bench --install-peers` has brought it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "tests/support/program.h"
#include "tests/support/tiny_run.h"
#include "train/bench/peer_process.h"

namespace longreach::test {
namespace {

TEST(Torchrun, RanksTrainWhatLaunchTrains) {
  const std::string programs = bench::peers_environment() + "/bin";
  if (!std::filesystem::exists(programs + "/torchrun"))
    GTEST_SKIP() << "no torchrun in " << programs << "; run `longreach bench --install-peers`";
  const TemporaryFolder folder;
  const std::string config = write_tiny_run(folder);
  const ProgramResult result = run_command({"env", "PATH=" + programs + ":" + std::getenv("PATH"),
                                            std::string("LONGREACH=") + LONGREACH_PROGRAM,
                                            LONGREACH_SOURCE_DIR "/configs/launch/torchrun.sh", "2", config,
                                            "--job.dump_folder", folder.path("torchrun")});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, testing::HasSubstr("ranks      2, 2 on this machine"));
  ASSERT_EQ(
      run_program({"launch", "--nproc", "2", "train", config, "--job.dump_folder", folder.path("launched")})
          .code,
      0);
  EXPECT_EQ(losses(folder.path("torchrun")), losses(folder.path("launched")));
  EXPECT_EQ(losses(folder.path("torchrun")).size(), 12u);
}

}  // namespace
}  // namespace longreach::test
