// Minimum, median, ratios by pairs and growth exponents.
#include "train/bench/statistics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"

namespace longreach::bench {
namespace {

TEST(Statistics, TakeMinimumAndMedian) {
  EXPECT_EQ(minimum({3, 1, 2}), 1);
  EXPECT_EQ(median({9, 1, 4}), 4);
  EXPECT_EQ(median({9, 1, 4, 6}), 5);
  EXPECT_EQ(median({7}), 7);
  EXPECT_THROW(minimum({}), Error);
  EXPECT_THROW(median({}), Error);
}

TEST(Statistics, PairsCancelWhatSlowsBothSides) {
  // The machine grows four times slower during the run; the peer takes twice as long in every round.
  const std::vector<double> ours{1, 1, 2, 4, 4}, peer{2, 2, 4, 8, 8};
  EXPECT_DOUBLE_EQ(ratio_by_pairs(ours, peer).median, 2);
  EXPECT_DOUBLE_EQ(ratio_by_pairs(ours, peer).of_minima, 2);
  // One disturbed round moves neither by much, and the median not at all.
  EXPECT_DOUBLE_EQ(ratio_by_pairs({1, 1, 30}, {2, 2, 2}).median, 2);
  EXPECT_THROW(ratio_by_pairs({1, 2}, {1}), Error);
}

TEST(Statistics, GrowthIsTheSlopeInLogarithms) {
  const std::vector<double> sizes{2048, 8192, 32768};
  std::vector<double> linear, steep, flat{5, 5, 5};
  for (const double size : sizes) {
    linear.push_back(3 * size);
    steep.push_back(0.1 * std::pow(size, 1.5));
  }
  EXPECT_NEAR(growth_exponent(sizes, linear), 1.0, 1e-12);
  EXPECT_NEAR(growth_exponent(sizes, steep), 1.5, 1e-12);
  EXPECT_NEAR(growth_exponent(sizes, flat), 0.0, 1e-12);
  EXPECT_THROW(growth_exponent({2048}, {1}), Error);
}

}  // namespace
}  // namespace longreach::bench
