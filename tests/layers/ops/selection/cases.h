// Cases of select_blocks: inputs, the fused run beside the float64 reference, and an honest comparison of
// lists.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "layers/ops/common/packed_documents.h"
#include "layers/ops/selection/selection.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct SelectCase {
  int64_t batch = 1, heads = 4, key_heads = 2, lists = 2, size = 16;
  BlockGeometry geometry;
  BlockScores how;
  SelectionRule rule;
  double magnitude = 1.0;

  int64_t rows() const {
    const at::Tensor& bounds = geometry.cu_seqlens;
    return row_count(packed_documents(bounds, bounds, geometry.tokens - geometry.offset, geometry.tokens,
                                      geometry.query_block));
  }
  at::Tensor q(at::ScalarType dtype) const {
    return (normal({batch, rows(), heads, size}, 1) * magnitude).to(dtype);
  }
  at::Tensor k(at::ScalarType dtype) const {
    const PoolWindows windows{how.width, how.stride, how.partial, geometry.cu_seqlens};
    return (normal({batch, window_count(windows, geometry.tokens), key_heads, size}, 2) * magnitude)
        .to(dtype);
  }
};

using Visible = BlockScores::Visible;
using Vote = BlockScores::Vote;
inline constexpr Visible kVisible[] = {Visible::started, Visible::complete, Visible::past, Visible::all};
inline constexpr Vote kVotes[] = {Vote::mean, Vote::sum, Vote::max};

// One token a row, blocks of 16, windows of 8 in strides of 4: as in NSA.
inline SelectCase token_rows() {
  return {.geometry = {.query_block = 1, .key_block = 16, .tokens = 150},
          .how = {.visible = Visible::complete, .width = 8, .stride = 4, .partial = false},
          .rule = {.top_k = 4, .first = 1, .latest = 2}};
}
// Blocks of queries, windows that are the blocks: as in SeerAttention.
inline SelectCase block_rows() {
  return {.geometry = {.query_block = 16, .key_block = 16, .tokens = 330},
          .how = {.width = 16, .stride = 16},
          .rule = {.top_k = 5}};
}

inline at::Tensor bounds(const std::vector<int>& values) { return at::tensor(values, at::kInt); }

// The blocks of each row of indices [.., S]; also that they ascend and end in -1.
inline std::vector<std::vector<int32_t>> lists_of(const at::Tensor& indices) {
  const at::Tensor rows = indices.contiguous();
  const int64_t size = rows.size(3);
  const int32_t* data = rows.const_data_ptr<int32_t>();
  std::vector<std::vector<int32_t>> lists;
  for (int64_t row = 0; row < rows.size(0) * rows.size(1) * rows.size(2); ++row, data += size) {
    const int32_t* end = std::find(data, data + size, -1);
    EXPECT_TRUE(std::all_of(end, data + size, [](int32_t block) { return block == -1; })) << "row " << row;
    EXPECT_TRUE(std::is_sorted(data, end, std::less_equal<>())) << "row " << row;
    lists.emplace_back(data, end);
  }
  return lists;
}

// Two lists of one row may differ only where the exact scores do not decide: the blocks in one list alone lie
// within rounding of each other or of the threshold, or what both lists hold reaches the mass but for
// rounding.
inline bool undecided(const std::vector<int32_t>& a, const std::vector<int32_t>& b, const double* scores,
                      int64_t blocks, const SelectionRule& rule, double rounding) {
  std::vector<int32_t> apart, common;
  std::set_symmetric_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(apart));
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(common));
  double largest = 0, total = 0, reached = 0, low = kInfinity, high = -kInfinity;
  for (int64_t block = 0; block < blocks; ++block) {
    if (scores[block] == -kInfinity) continue;
    largest = std::max(largest, std::abs(scores[block]));
    total += scores[block];
  }
  for (const int32_t block : common) reached += scores[block];
  for (const int32_t block : apart) {
    low = std::min(low, scores[block]);
    high = std::max(high, scores[block]);
  }
  const double limit = rounding * std::max(largest, 1e-30);
  if (a.size() == b.size()) return high - low <= limit;
  if (rule.mass) return std::abs(reached - *rule.mass * total) <= rounding * total;
  return rule.threshold && std::abs(low - *rule.threshold) <= limit &&
         std::abs(high - *rule.threshold) <= limit;
}

inline std::vector<SelectionRule> every_rule() {
  std::vector<SelectionRule> rules{{},
                                   {.latest = 0},
                                   {.top_k = 1},
                                   {.top_k = 1, .latest = 0},
                                   {.top_k = 100},
                                   {.top_k = 6, .first = 3, .latest = 3},
                                   {.top_k = 3, .latest = 1, .causal = false},
                                   {.density = 0.5},
                                   {.density = 0.3, .latest = 0},
                                   {.density = 1.0}};
  for (const double threshold : {0.0, 0.05, 0.3}) rules.push_back({.threshold = threshold});
  rules.push_back({.top_k = 3, .threshold = 0.05});
  for (const double mass : {0.1, 0.7, 0.95, 1.0}) rules.push_back({.mass = mass});
  rules.push_back({.top_k = 4, .mass = 0.8, .first = 1});
  rules.push_back({.threshold = 0.1, .mass = 0.9});
  return rules;
}

inline SelectCase random_case(std::mt19937& random) {
  const auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  const int64_t key_heads = draw(1, 3), heads = key_heads * draw(1, 5);
  SelectCase c{.batch = draw(1, 2), .heads = heads, .key_heads = key_heads, .size = draw(1, 70)};
  do c.lists = draw(1, heads);
  while (heads % c.lists != 0);
  const int64_t key_block = draw(1, 40), tokens = draw(0, 150);
  c.geometry = {.query_block = draw(0, 1) == 0 ? 1 : draw(1, 70), .key_block = key_block, .tokens = tokens};
  const bool same = draw(0, 1) == 0;
  c.how = {.visible = kVisible[draw(0, 3)], .softmax = !same || draw(0, 1) == 0, .vote = kVotes[draw(0, 2)]};
  c.how.width = same ? key_block : draw(1, 50);
  c.how.stride = same ? key_block : draw(1, 30);
  c.how.partial = same;
  c.rule.latest = draw(0, 2);
  c.rule.first = draw(0, 2);
  c.rule.causal = draw(0, 3) > 0;
  if (draw(0, 2) > 0) c.rule.top_k = c.rule.first + c.rule.latest + draw(1, 6);
  if (c.how.softmax && draw(0, 3) == 0) c.rule.mass = 0.8;
  if (draw(0, 3) == 0) c.rule.threshold = 0.04;
  if (draw(0, 2) == 0) {
    const int64_t cut = draw(0, tokens);
    c.geometry.cu_seqlens =
        bounds({0, static_cast<int>(cut), static_cast<int>(cut), static_cast<int>(tokens)});
    c.batch = 1;
  } else if (draw(0, 2) == 0) {
    c.geometry.offset = draw(0, tokens);
  }
  return c;
}

// The fused run in `dtype` against the reference in float64 on the same numbers.
using Select = decltype(&select_blocks);

inline void expect_matches(const SelectCase& c, at::ScalarType dtype, Select select = select_blocks) {
  const at::Tensor q = c.q(dtype), k = c.k(dtype);
  const Selection fused = select(q, k, c.lists, c.how, c.geometry, c.rule, true),
                  exact = select_blocks_reference(q.to(at::kDouble), k.to(at::kDouble), c.lists, c.how,
                                                  c.geometry, c.rule, true);
  ASSERT_EQ(fused.scores.sizes(), exact.scores.sizes());
  EXPECT_EQ(fused.scores.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(fused.scores == -kInfinity, exact.scores == -kInfinity));
  const auto finite = [](const at::Tensor& x) { return x.masked_fill(x == -kInfinity, 0.0); };
  const at::Tensor wanted = finite(exact.scores);
  const double largest = wanted.numel() == 0 ? 0 : wanted.abs().max().item<double>(),
               rounding = 2e-6 * std::max(1.0, c.magnitude * c.magnitude);
  if (wanted.numel() > 0) {
    EXPECT_LE((finite(fused.scores).to(at::kDouble) - wanted).abs().max().item<double>(), rounding * largest);
  }
  const bool fixed = c.rule.top_k > 0 || c.rule.density > 0;
  if (fixed) {
    EXPECT_EQ(fused.indices.sizes(), exact.indices.sizes());
  }
  const auto got = lists_of(fused.indices), right = lists_of(exact.indices);
  ASSERT_EQ(got.size(), right.size());
  const at::Tensor scores = exact.scores.contiguous();
  const int64_t blocks = scores.size(3);
  size_t differ = 0;
  for (size_t row = 0; row < got.size(); ++row) {
    if (got[row] == right[row]) continue;
    ++differ;
    EXPECT_TRUE(undecided(got[row], right[row],
                          scores.const_data_ptr<double>() + static_cast<int64_t>(row) * blocks, blocks,
                          c.rule, 4 * rounding))
        << "row " << row;
  }
  EXPECT_LE(differ, 1 + got.size() / 50) << "of " << got.size() << " rows";
  // Without the map of scores: the same lists.
  EXPECT_TRUE(at::equal(select(q, k, c.lists, c.how, c.geometry, c.rule, false).indices, fused.indices));
}

}  // namespace longreach::test
