// How faults are written.
#include "train/fault.h"

#include <gtest/gtest.h>

#include <csignal>

#include "core/error.h"

namespace longreach {
namespace {

TEST(Fault, ReadsWhatTheHelpSays) {
  const auto faults = parse_faults("kill:rank=1:step=7,slow:rank=0:step=1:ms=50");
  ASSERT_EQ(faults.size(), 2u);
  EXPECT_EQ(faults[0].kind, FaultKind::kKill);
  EXPECT_EQ(faults[0].rank, 1);
  EXPECT_EQ(faults[0].step, 7);
  EXPECT_EQ(faults[1].kind, FaultKind::kSlow);
  EXPECT_EQ(faults[1].milliseconds, 50);
  EXPECT_TRUE(parse_faults("").empty());
}

TEST(Fault, AKillMayWaitForTheSaveAfterItsStep) {
  const auto faults = parse_faults("kill:rank=0:step=4:write=12");
  ASSERT_EQ(faults.size(), 1u);
  EXPECT_EQ(faults[0].write, 12);
  Faults struck({.inject = "kill:rank=0:step=4:write=12"}, {.rank = 0, .world = 1});
  EXPECT_TRUE(struck.none());
  EXPECT_FALSE(struck.strike(4));
  EXPECT_EQ(struck.write_point(3), nullptr);
  const WritePoint point = struck.write_point(4);
  for (int before = 1; before < 12; ++before) point();
  EXPECT_EXIT(point(), testing::KilledBySignal(SIGKILL), "");
  for (const char* end : {"kill:rank=1:step=7:write=0", "kill:rank=1:step=7:write=1:ms=5",
                          "kill:rank=1:step=7:write=1:write=2", "stop:rank=1:step=7:write=1"})
    EXPECT_THROW(parse_faults(end), ConfigError) << end;
}

TEST(Fault, RefusesAllElse) {
  for (const char* written :
       {"kill", "kill:", "kill:rank=1", "kill:step=7:rank=1", "kill:rank=1:step=0", "kill:rank=-1:step=1",
        "kill:rank=1:step=7 ", " kill:rank=1:step=7", "kill:rank=1:step=7,", "kill:rank=1:step=7:ms=5",
        "kill:rank=1:step=1e3", "kill:rank=1:step=99999999999999999999", "Kill:rank=1:step=7",
        "slow:rank=1:step=7", "slow:rank=1:step=7:ms=0", "slow:rank=1:step=7:ms=5:ms=5", ",", ":"})
    EXPECT_THROW(parse_faults(written), ConfigError) << written;
}

TEST(Fault, StrikesOneRankInTheFirstAttemptOnly) {
  const FaultConfig config{.inject = "nan:rank=1:step=3,nan:rank=1:step=5"};
  EXPECT_TRUE(Faults(config, {.rank = 0, .world = 2}).none());
  EXPECT_TRUE(Faults(config, {.rank = 1, .world = 2, .restart = 1}).none());
  Faults faults(config, {.rank = 1, .world = 2});
  EXPECT_FALSE(faults.strike(2));
  EXPECT_TRUE(faults.strike(3));
  EXPECT_FALSE(faults.strike(3));  // it comes again after a rollback
  EXPECT_FALSE(faults.none());
  EXPECT_TRUE(faults.strike(5));
  EXPECT_TRUE(faults.none());
  EXPECT_THROW(expect_ranks_of(config, 1), ConfigError);
}

}  // namespace
}  // namespace longreach
