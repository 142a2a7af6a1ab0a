// choose_blocks: the rules on scores given by hand, ties, and against a sort.
#include <ATen/ops/full.h>

#include <numeric>

#include "core/error.h"
#include "tests/layers/ops/selection/cases.h"

namespace longreach::test {
namespace {

using Rows = std::vector<std::vector<int32_t>>;

// Rows of one token each over blocks of one token, not causal: every block of every row is a candidate.
Rows choose(const std::vector<std::vector<double>>& scores, const SelectionRule& rule,
            at::ScalarType dtype = at::kDouble) {
  std::vector<double> flat;
  for (const auto& row : scores) flat.insert(flat.end(), row.begin(), row.end());
  const auto rows = static_cast<int64_t>(scores.size()), blocks = static_cast<int64_t>(scores[0].size());
  const at::Tensor values = at::tensor(flat, at::kDouble).to(dtype).view({1, 1, rows, blocks});
  // Blocks of `rows` tokens each, so that row r is the token r of the first `rows`: offset leaves no others.
  const BlockGeometry geometry{
      .query_block = 1, .key_block = rows, .tokens = rows * blocks, .offset = rows * blocks - rows};
  return lists_of(choose_blocks(values, geometry, rule));
}

TEST(ChooseBlocks, TopKWithForcedBlocks) {
  const std::vector<std::vector<double>> scores{{1, 9, 3, 8, 2, 7, 0}};
  EXPECT_EQ(choose(scores, {.top_k = 3, .latest = 0}), (Rows{{1, 3, 5}}));
  EXPECT_EQ(choose(scores, {.top_k = 3, .latest = 1}), (Rows{{1, 3, 6}}));
  EXPECT_EQ(choose(scores, {.top_k = 4, .first = 1, .latest = 2}), (Rows{{0, 1, 5, 6}}));
  EXPECT_EQ(choose(scores, {.top_k = 3, .first = 2, .latest = 1}), (Rows{{0, 1, 6}}));
  EXPECT_EQ(choose(scores, {.top_k = 50, .latest = 1}), (Rows{{0, 1, 2, 3, 4, 5, 6}}));
  EXPECT_EQ(choose(scores, {.first = 9, .latest = 9}), (Rows{{0, 1, 2, 3, 4, 5, 6}}));
}

TEST(ChooseBlocks, TiesGoToTheLowestBlock) {
  const std::vector<std::vector<double>> equal{{4, 4, 4, 4, 4, 4}}, some{{1, 4, 4, 0, 4, 9}};
  for (const auto dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    EXPECT_EQ(choose(equal, {.top_k = 3, .latest = 0}, dtype), (Rows{{0, 1, 2}}));
    EXPECT_EQ(choose(equal, {.top_k = 3, .latest = 1}, dtype), (Rows{{0, 1, 5}}));
    EXPECT_EQ(choose(some, {.top_k = 3, .latest = 0}, dtype), (Rows{{1, 2, 5}}));
    EXPECT_EQ(choose(equal, {.mass = 0.5, .latest = 0}, dtype), (Rows{{0, 1, 2}}));
  }
}

// Scores that float32 cannot tell apart are told apart in float64.
TEST(ChooseBlocks, Float64DecidesInFloat64) {
  const std::vector<std::vector<double>> near{{1.0, 1.0 + 1e-12, 1.0 + 2e-12}};
  EXPECT_EQ(choose(near, {.top_k = 1, .latest = 0}), (Rows{{2}}));
  EXPECT_EQ(choose(near, {.top_k = 1, .latest = 0}, at::kFloat), (Rows{{0}}));
  EXPECT_EQ(choose(near, {.threshold = 1.0 + 1e-12, .latest = 0}), (Rows{{2}}));
}

TEST(ChooseBlocks, ThresholdKeepsWhatIsAbove) {
  const std::vector<std::vector<double>> scores{{0.1, 0.5, 0.2, 0.5, 0.1}};
  EXPECT_EQ(choose(scores, {.threshold = 0.2, .latest = 0}), (Rows{{1, 3}}));
  EXPECT_EQ(choose(scores, {.threshold = 0.2, .first = 1, .latest = 1}), (Rows{{0, 1, 3, 4}}));
  EXPECT_EQ(choose(scores, {.top_k = 1, .threshold = 0.2, .latest = 0}), (Rows{{1}}));
  EXPECT_EQ(choose(scores, {.threshold = 0.5, .latest = 0}), (Rows{{}}));
  EXPECT_EQ(choose(scores, {.top_k = 3, .threshold = 0.5, .latest = 0}), (Rows{{}}));
}

TEST(ChooseBlocks, MassKeepsTheFewestThatReachIt) {
  const std::vector<std::vector<double>> scores{{0.1, 0.4, 0.2, 0.3, 0.0}};
  EXPECT_EQ(choose(scores, {.mass = 0.35, .latest = 0}), (Rows{{1}}));
  EXPECT_EQ(choose(scores, {.mass = 0.65, .latest = 0}), (Rows{{1, 3}}));
  EXPECT_EQ(choose(scores, {.mass = 0.75, .latest = 0}), (Rows{{1, 2, 3}}));
  EXPECT_EQ(choose(scores, {.mass = 1.0, .latest = 0}), (Rows{{0, 1, 2, 3}})) << "no block of weight 0";
  EXPECT_EQ(choose(scores, {.mass = 0.05, .first = 1, .latest = 0}), (Rows{{0}})) << "forced ones count";
  EXPECT_EQ(choose(scores, {.top_k = 1, .mass = 0.9, .latest = 0}), (Rows{{1}}));
}

TEST(ChooseBlocks, DensityIsThatOfSeerAttention) {
  // (1 - sqrt(1 - r)) blocks, rounded down, at least one.
  std::vector<double> scores(20);
  std::iota(scores.begin(), scores.end(), 0.0);
  for (const auto& [density, count] :
       std::vector<std::pair<double, size_t>>{{0.2, 2}, {0.37, 4}, {0.01, 1}, {1, 20}})
    EXPECT_EQ(choose({scores}, {.density = density, .latest = 0})[0].size(), count) << density;
}

TEST(ChooseBlocks, CausalCandidatesAndPadding) {
  const BlockGeometry geometry{.query_block = 2, .key_block = 3, .tokens = 8};
  const at::Tensor scores = at::full({1, 1, 4, 3}, 1.0);
  scores.narrow(3, 1, 2).fill_(2.0);
  const at::Tensor lists = choose_blocks(scores, geometry, {.top_k = 2, .latest = 0});
  EXPECT_EQ(lists_of(lists), (Rows{{0}, {0, 1}, {0, 1}, {1, 2}}));
  EXPECT_EQ(choose_blocks(scores, geometry, {.top_k = 9}).size(3), 9) << "S is top_k";
  EXPECT_EQ(choose_blocks(scores, geometry, {}).size(3), 3) << "S is the longest row";
}

TEST(ChooseBlocks, NanMattersOnlyInCandidates) {
  const BlockGeometry geometry{.query_block = 2, .key_block = 2, .tokens = 4};
  at::Tensor scores = at::full({1, 1, 2, 2}, 1.0f);
  scores[0][0][0][1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(lists_of(choose_blocks(scores, geometry, {})), (Rows{{0}, {0, 1}}));
  scores[0][0][1][1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(choose_blocks(scores, geometry, {}), DataError);
}

TEST(ChooseBlocks, IsWhatASortGives) {
  const int64_t blocks = 60, rows = 50;
  const at::Tensor scores = (normal({1, 1, rows, blocks}, 3) * 3).round();  // many ties
  const BlockGeometry geometry{
      .query_block = 1, .key_block = rows, .tokens = rows * blocks, .offset = rows * blocks - rows};
  for (const int64_t top_k : {1, 7, 30, 59, 60}) {
    const auto got = lists_of(choose_blocks(scores, geometry, {.top_k = top_k, .latest = 0}));
    for (int64_t r = 0; r < rows; ++r) {
      const double* row = scores.const_data_ptr<double>() + r * blocks;
      std::vector<int32_t> order(blocks);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return row[a] > row[b]; });
      order.resize(top_k);
      std::sort(order.begin(), order.end());
      EXPECT_EQ(got[r], order);
    }
  }
}

}  // namespace
}  // namespace longreach::test
