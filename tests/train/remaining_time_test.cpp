// The time left of a run: steps, and every evaluation that is still to come.
#include "train/remaining_time.h"

#include <gtest/gtest.h>

namespace longreach {
namespace {

TEST(RemainingTime, CountsStepsAsTheyWereLately) {
  RemainingTime time({.last_step = 10});
  time.saw_step(2.0);
  EXPECT_DOUBLE_EQ(time.after(1), 18.0);
  time.saw_step(4.0);
  EXPECT_DOUBLE_EQ(time.after(2), 8 * 2.2);
  EXPECT_DOUBLE_EQ(time.after(10), 0.0);
}

TEST(RemainingTime, CountsTheEvaluationsToComeByThoseSeen) {
  RemainingTime time(
      {.last_step = 100, .rows_per_step = 4, .validation_freq = 10, .validation_rows = 8, .final_rows = 50});
  time.saw_step(6.0);
  // Nothing seen: a row forward is a third of a row in a step, 0.5 s. After 20, ..., 90; at 100 the final one
  // alone.
  EXPECT_DOUBLE_EQ(time.after(10), 90 * 6 + (8 * 8 + 50) * 0.5);
  time.saw_evaluation(8, 16.0);
  EXPECT_DOUBLE_EQ(time.after(10), 90 * 6 + (8 * 8 + 50) * 2.0);
  EXPECT_DOUBLE_EQ(time.after(99), 6 + 50 * 2.0);
  EXPECT_DOUBLE_EQ(time.after(100), 0.0);
}

TEST(RemainingTime, AnEvaluationAfterTheLastStepCountsWithoutAFinalOne) {
  RemainingTime time({.last_step = 20, .rows_per_step = 1, .validation_freq = 10, .validation_rows = 3});
  time.saw_step(1.0);
  time.saw_evaluation(3, 3.0);
  EXPECT_DOUBLE_EQ(time.after(9), 11 + 6.0);
  EXPECT_DOUBLE_EQ(time.after(10), 10 + 3.0);
}

}  // namespace
}  // namespace longreach
