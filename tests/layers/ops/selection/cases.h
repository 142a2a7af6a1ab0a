// Cases of select_blocks: inputs, the fused run beside the float64 reference, and an honest comparison of lists.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <set>
#include <vector>

#include "layers/ops/document_rows.h"
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
    return row_count(document_rows(bounds, bounds, geometry.tokens - geometry.offset, geometry.tokens,
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
// within rounding of each other or of the threshold, or what both lists hold reaches the mass but for rounding.
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

// The fused run in `dtype` against the reference in float64 on the same numbers.
inline void expect_matches(const SelectCase& c, at::ScalarType dtype) {
  const at::Tensor q = c.q(dtype), k = c.k(dtype);
  const Selection fused = select_blocks(q, k, c.lists, c.how, c.geometry, c.rule, true),
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
  EXPECT_TRUE(at::equal(select_blocks(q, k, c.lists, c.how, c.geometry, c.rule).indices, fused.indices));
}

}  // namespace longreach::test
