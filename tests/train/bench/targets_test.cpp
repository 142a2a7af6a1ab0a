// What is asked on which machine, and the verdicts.
#include "train/bench/targets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace longreach::bench {
namespace {

using testing::HasSubstr;

const Machine kTargetMachine{.has = {.avx2 = true, .avx512 = true, .avx512_bf16 = true}};
const Machine kTileMachine{.has = {.avx2 = true, .avx512 = true, .avx512_bf16 = true, .amx = true}};
const Machine kOldMachine{.has = {.avx2 = true}};

Row row_of(const Target& target, int threads, double ratio) {
  Row row;
  row.setting = {.name = target.name,
                 .peer = target.peer,
                 .tokens = target.tokens,
                 .dtype = target.dtype,
                 .pass = target.pass,
                 .threads = threads};
  row.ratio = ratio;
  row.wall_min = 1.0 / threads;
  return row;
}

TEST(Targets, ApplyToOneKindOfMachine) {
  EXPECT_TRUE(kTargetMachine.targets_apply());
  EXPECT_FALSE(kTileMachine.targets_apply());
  EXPECT_FALSE(kOldMachine.targets_apply());
  for (const Target& target : targets()) {
    EXPECT_EQ(required_ratio(target, kTargetMachine), target.ratio);
    const double elsewhere = target.dtype == "float32" ? 1.0 : 0.0;
    EXPECT_EQ(required_ratio(target, kTileMachine), target.peer == "dense" ? target.ratio : elsewhere);
  }
}

TEST(Targets, VerdictsFollowTheRatio) {
  const Target& first = targets().front();  // dense forward float32 at 8k: 1.25
  std::ostringstream met, missed, elsewhere;
  print_targets(met, kTargetMachine, {row_of(first, 1, 1.30)});
  EXPECT_THAT(met.str(), HasSubstr(" met (>= 1.25x)"));
  print_targets(missed, kTargetMachine, {row_of(first, 1, 1.20)});
  EXPECT_THAT(missed.str(), HasSubstr("not met (>= 1.25x)"));
  print_targets(elsewhere, kTileMachine, {row_of(first, 1, 1.20)});
  EXPECT_THAT(elsewhere.str(), HasSubstr(" met (>= 1.00x)"));
}

// Rows of one operator against two peers are two goals.
TEST(Targets, PeersAreToldApart) {
  std::vector<Row> rows;
  for (const Target& target : targets()) {
    if (target.name == "block_attention" && target.pass == "both") {
      rows.push_back(row_of(target, 1, target.peer == "dense" ? 9.5 : 10.5));
    }
  }
  std::ostringstream out;
  print_targets(out, kTargetMachine, rows);
  EXPECT_THAT(out.str(), HasSubstr("10.50x of 11.00x"));
  EXPECT_THAT(out.str(), HasSubstr("over dense"));
  EXPECT_THAT(out.str(), HasSubstr("9.50x of "));
}

TEST(Targets, RefusedRowsAreNotJudged) {
  Row row = row_of(targets().front(), 1, 9);
  row.refused = "o disagrees";
  std::ostringstream out;
  print_targets(out, kTargetMachine, {row});
  EXPECT_THAT(out.str(), HasSubstr("refused"));
  EXPECT_THAT(out.str(), HasSubstr("o disagrees"));
}

TEST(Targets, TwoThreadsAreComparedByWallTime) {
  std::ostringstream out;
  const Target& first = targets().front();
  print_targets(out, kTargetMachine, {row_of(first, 1, 1.3), row_of(first, 2, 1.3)});
  EXPECT_THAT(out.str(), HasSubstr("2 threads over 1"));
  EXPECT_THAT(out.str(), HasSubstr("2.00x"));
}

TEST(Targets, SpreadIsOverTheLengthsOfOneMechanism) {
  std::vector<Row> rows;
  for (const int64_t tokens : {2048, 65536}) {
    Row row;
    row.setting = {.name = "lightning", .peer = "", .tokens = tokens, .heads = 1};
    row.seconds_min = 1e-9 * static_cast<double>(tokens) * (tokens == 2048 ? 100 : 108);
    rows.push_back(row);
  }
  EXPECT_NEAR(spread_of_cost(rows), 0.08, 1e-12);
  EXPECT_EQ(spread_of_cost({}), 0);
}

TEST(Targets, EverySettingHasItsThreadCount) {
  const std::vector<Setting> settings = target_settings({1, 2}, 5);
  EXPECT_EQ(settings.size(), 2 * (targets().size() + 6));
  for (const Setting& one : settings) EXPECT_EQ(one.rounds, 5);
}

}  // namespace
}  // namespace longreach::bench
