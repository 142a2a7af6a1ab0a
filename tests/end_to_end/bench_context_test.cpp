// A layer over ranks that share its row: what is said, and what is counted.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/program.h"

namespace longreach::test {
namespace {

TEST(BenchContext, CountsWhatRanksSend) {
  const TemporaryFolder folder;
  const std::string path = folder.path("rows.json");
  const ProgramResult result =
      run_program({"bench", "scaling", "--context", "--kinds", "dense,sliding", "--seq-len", "256", "--heads",
                   "2", "--head-dim", "16", "--rounds", "1", "--json", path});
  ASSERT_EQ(result.code, 0) << result.out << result.err;
  const auto rows = nlohmann::json::parse(read_text(path)).at("rows");
  ASSERT_EQ(rows.size(), 3u) << "dense contiguous, dense balanced, sliding";
  EXPECT_EQ(rows[0].at("setting").at("balance"), "none");
  EXPECT_EQ(rows[1].at("setting").at("balance"), "ptrr");
  // The second half reads the first: keys and values forward and again backward; their gradients come back.
  EXPECT_EQ(rows[0].at("bytes"), 2 * 128 * (2 * 2 * 16) * 4);
  EXPECT_GT(rows[0].at("imbalance"), rows[1].at("imbalance"));
  for (const auto& row : rows) {
    EXPECT_GT(row.at("one_seconds"), 0);
    EXPECT_GT(row.at("seconds"), 0);
    EXPECT_GT(row.at("ratio"), 0);
    EXPECT_GE(row.at("waited"), 0);
    EXPECT_LE(row.at("waited"), 1);
  }
}

TEST(BenchContext, MeasuresTheMemoryOfRanks) {
  const ProgramResult result = run_program({"bench", "memory", "dense_layer", "--lengths", "1024", "--dtype",
                                            "float32", "--heads", "2", "--ranks", "2"});
  ASSERT_EQ(result.code, 0) << result.out << result.err;
  EXPECT_NE(result.out.find("shared by 2 ranks: "), std::string::npos) << result.out;
  EXPECT_EQ(run_program({"bench", "memory", "interval_attention", "--ranks", "2"}).code, 2);
}

}  // namespace
}  // namespace longreach::test
