// The background loader: order, jumps, errors; under tsan, its hand-over between threads.
#include "data/prefetch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <stdexcept>
#include <vector>

namespace longreach::data {
namespace {

using Items = std::vector<int64_t>;

Items items_of(int64_t index) {
  Items items(1000);
  std::iota(items.begin(), items.end(), index);
  return items;
}

TEST(Prefetcher, GivesWhatLoadGives) {
  Prefetcher<Items> prefetcher(items_of);
  for (const int64_t index : {0, 1, 2, 3, 10, 11, 4, 5})
    EXPECT_EQ(prefetcher.get(index), items_of(index)) << index;
}

TEST(Prefetcher, LoadsTheNextItemOnce) {
  std::atomic<int> loads{0};
  {
    Prefetcher<int64_t> prefetcher([&](int64_t index) {
      ++loads;
      return index;
    });
    for (int64_t index = 0; index < 5; ++index) EXPECT_EQ(prefetcher.get(index), index);
  }
  EXPECT_EQ(loads, 6);
}

TEST(Prefetcher, ThrowsWhatLoadThrowsWhenItsItemIsAskedFor) {
  Prefetcher<int64_t> prefetcher([](int64_t index) {
    if (index == 2) throw std::runtime_error("two");
    return index;
  });
  EXPECT_EQ(prefetcher.get(0), 0);
  EXPECT_EQ(prefetcher.get(1), 1);
  EXPECT_THROW(prefetcher.get(2), std::runtime_error);
  EXPECT_EQ(prefetcher.get(3), 3);
}

}  // namespace
}  // namespace longreach::data
