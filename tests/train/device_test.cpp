// Which CUDA device a rank sees; none is needed for that.
#include "train/device.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/errors.h"

namespace longreach {
namespace {

TEST(Device, EachRankOfAMachineSeesItsOwn) {
  const auto seen = [](const std::string& visible, int local_rank, int local_world) {
    return visible_device(visible, {.local_rank = local_rank, .local_world = local_world});
  };
  EXPECT_EQ(seen("", 0, 1), "");
  EXPECT_EQ(seen("4,5", 0, 1), "4,5");
  EXPECT_EQ(seen("", 3, 4), "3");
  EXPECT_EQ(seen("4,GPU-5e0f,7", 1, 2), "GPU-5e0f");
  EXPECT_EQ(seen("6", 1, 4), "6");
  test::expect_error<ConfigError>(
      "CUDA_VISIBLE_DEVICES = 0,1,2: 3 devices for 4 ranks of this machine; expected one for each",
      [&] { seen("0,1,2", 0, 4); });
}

}  // namespace
}  // namespace longreach
