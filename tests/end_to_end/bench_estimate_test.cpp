// Estimates for many devices: what is said, and what is drawn.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/program.h"

namespace longreach::test {
namespace {

TEST(BenchEstimate, SaysThatItIsOneAndIsDrawn) {
  const TemporaryFolder folder;
  const std::string json = folder.path("estimate.json"), picture = folder.path("estimate.svg");
  const ProgramResult result = run_program(
      {"bench", "estimate", LONGREACH_SOURCE_DIR "/configs/quickstart.toml", "--ranks", "8,1024", "--context",
       "1,8,0", "--json", json, "--training.seq_len", "65536", "--model.max_position_embeddings", "65536"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("Estimated, not measured"), std::string::npos) << result.out;
  const auto rows = nlohmann::json::parse(read_text(json)).at("rows");
  ASSERT_EQ(rows.size(), 6u);
  for (const auto& row : rows) {
    EXPECT_GT(row.at("ratio"), 0);
    EXPECT_LE(row.at("ratio").get<double>(), row.at("ranks").get<double>() * (1 + 1e-9));
  }
  const ProgramResult drawn = run_program({"plot", json, "--output", picture});
  if (drawn.code == 2 && drawn.err.find("gnuplot") != std::string::npos)
    GTEST_SKIP() << "gnuplot is not installed";
  ASSERT_EQ(drawn.code, 0) << drawn.err;
  EXPECT_NE(read_text(picture).find("times the speed of one"), std::string::npos);
}

TEST(BenchEstimate, RefusesWhatIsNoNumber) {
  const std::string config = LONGREACH_SOURCE_DIR "/configs/quickstart.toml";
  EXPECT_EQ(run_program({"bench", "estimate"}).code, 2);
  EXPECT_EQ(run_program({"bench", "estimate", config, "--tflops", "0"}).code, 2);
  EXPECT_EQ(run_program({"bench", "estimate", config, "--ranks", "two"}).code, 2);
  EXPECT_EQ(run_program({"bench", "estimate", config, "--training.seq_length", "5"}).code, 2);
}

}  // namespace
}  // namespace longreach::test
