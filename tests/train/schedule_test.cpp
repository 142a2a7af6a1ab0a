// Learning-rate schedules at their corners.
#include "train/schedule.h"

#include <gtest/gtest.h>

namespace longreach {
namespace {

TEST(Schedule, WarmsUpLinearly) {
  const ScheduleConfig config{.decay_type = "constant", .warmup_steps = 10};
  EXPECT_DOUBLE_EQ(learning_rate_factor(config, 1, 100), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate_factor(config, 10, 100), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate_factor(config, 99, 100), 1.0);
}

TEST(Schedule, CosineAndLinearEndAtTheirFloor) {
  for (const char* type : {"cosine", "linear"}) {
    const ScheduleConfig config{.decay_type = type, .warmup_steps = 0, .lr_min = 0.2};
    EXPECT_DOUBLE_EQ(learning_rate_factor(config, 100, 100), 0.2);
    EXPECT_NEAR(learning_rate_factor(config, 50, 100), 0.6, 1e-12);
  }
  const ScheduleConfig cosine{.decay_type = "cosine", .warmup_steps = 0, .lr_min = 0.0};
  EXPECT_NEAR(learning_rate_factor(cosine, 25, 100), 0.8535533905932737, 1e-12);
}

TEST(Schedule, WsdHoldsThenFalls) {
  const ScheduleConfig config{.decay_type = "wsd", .warmup_steps = 5, .decay_ratio = 0.2, .lr_min = 0.1};
  EXPECT_DOUBLE_EQ(learning_rate_factor(config, 80, 100), 1.0);
  EXPECT_NEAR(learning_rate_factor(config, 90, 100), 0.55, 1e-12);
  EXPECT_NEAR(learning_rate_factor(config, 100, 100), 0.1, 1e-12);
}

}  // namespace
}  // namespace longreach
