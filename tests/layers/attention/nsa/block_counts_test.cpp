// Vector files that give each token and list a number of blocks of its own.
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/train/verify/edited.h"

namespace longreach::test {
namespace {

// fla's other form of block_counts.
TEST(Verify, ReadsBlockCountsOfEachToken) {
  Edited counted("nsa/fla_plain");
  counted["in.block_counts"] = at::full({1, 96, 1}, 4, at::kLong);
  EXPECT_EQ(counted.verify().code, 0) << counted.verify().out;
  counted["in.block_counts"].select(1, 95).fill_(3);
  const Outcome outcome = counted.verify();
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, ::testing::HasSubstr("block_indices"));
}

}  // namespace
}  // namespace longreach::test
