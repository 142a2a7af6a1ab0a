// Threads of kernels: that there are some, and that every index is visited once.
#include "layers/ops/cpu/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

namespace longreach {
namespace {

// Two pieces that each wait for the other: passes only when they run side by side.
bool meet(std::atomic<int>& arrived) {
  ++arrived;
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (arrived < 2 && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
  return arrived == 2;
}

class Parallel : public testing::Test {
 protected:
  void SetUp() override { set_num_threads(2); }
};

TEST_F(Parallel, TilesRunSideBySide) {
  if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "one core";
  std::atomic<int> arrived{0}, met{0};
  parallel_tiles(2, [&](int64_t) { met += meet(arrived); });
  EXPECT_EQ(met, 2);
}

TEST_F(Parallel, RangesRunSideBySide) {
  if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "one core";
  std::atomic<int> arrived{0}, met{0};
  parallel_for(0, 2, 1, [&](int64_t, int64_t) { met += meet(arrived); });
  EXPECT_EQ(met, 2);
}

TEST_F(Parallel, VisitsEveryIndexOnce) {
  for (const int64_t count : {0, 1, 2, 3, 1000}) {
    std::vector<std::atomic<int>> tiles(static_cast<size_t>(count)), range(static_cast<size_t>(count));
    parallel_tiles(count, [&](int64_t i) { ++tiles[static_cast<size_t>(i)]; });
    parallel_for(0, count, 7, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) ++range[static_cast<size_t>(i)];
    });
    for (int64_t i = 0; i < count; ++i) {
      EXPECT_EQ(tiles[static_cast<size_t>(i)], 1);
      EXPECT_EQ(range[static_cast<size_t>(i)], 1);
    }
  }
}

TEST_F(Parallel, RethrowsWhatATileThrows) {
  EXPECT_THROW(parallel_tiles(8,
                              [](int64_t i) {
                                if (i == 5) throw std::runtime_error("tile");
                              }),
               std::runtime_error);
}

}  // namespace
}  // namespace longreach
