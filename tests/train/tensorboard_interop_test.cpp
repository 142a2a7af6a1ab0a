// What TensorBoard's own reader makes of a run that was resumed and rolled back, where Python has
// `tensorboard`.
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>

#include "core/temporary_folder.h"
#include "tests/support/program.h"
#include "train/tensorboard.h"

namespace longreach {
namespace {

constexpr const char* kRead =
    "import sys\n"
    "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
    "events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0})\n"
    "events.Reload()\n"
    "for tag in sorted(events.Tags()['scalars']):\n"
    "    print(tag, *(f'{e.step}:{e.value:g}' for e in events.Scalars(tag)))\n";

// One start of a run: steps first + 1 to last, with a loss that tells the starts apart, and valid_loss at the
// last.
void write(const std::string& folder, int64_t first, int64_t last, double loss) {
  TensorboardWriter writer(folder, first);
  for (int64_t step = first + 1; step <= last; ++step) writer.scalar("loss", loss, step);
  writer.scalar("valid_loss", loss, last);
}

std::string read(const std::string& folder) {
  const TemporaryFolder scripts;
  const test::ProgramResult result = test::run_command({"python3", scripts.write("read.py", kRead), folder});
  EXPECT_EQ(result.code, 0) << result.err;
  return result.out;
}

class TensorboardInterop : public testing::Test {
 protected:
  void SetUp() override {
    if (std::system("python3 -c 'import tensorboard' > /dev/null 2>&1") != 0)
      GTEST_SKIP() << "python3 has no tensorboard";
  }
  const TemporaryFolder folder_;
};

TEST_F(TensorboardInterop, AResumedRunKeepsEveryStep) {
  write(folder_.path(), 0, 3, 1);
  write(folder_.path(), 3, 6, 2);
  EXPECT_EQ(read(folder_.path()),
            "loss 1:1 2:1 3:1 4:2 5:2 6:2\n"
            "valid_loss 3:1 6:2\n");
}

TEST_F(TensorboardInterop, StepsThatAreTrainedAgainReplaceTheOldOnes) {
  write(folder_.path(), 0, 5, 1);
  write(folder_.path(), 2, 4, 2);
  write(folder_.path(), 0, 1, 3);
  EXPECT_EQ(read(folder_.path()), "loss 1:3\nvalid_loss 1:3\n");
}

}  // namespace
}  // namespace longreach
