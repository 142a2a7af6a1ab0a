// The sm_90a kernels of dense attention (wgmma, TMA, warp specialisation), run from their PTX through the
// product's launch plans, against the float64 reference.
#include <ATen/ops/equal.h>

#include "tests/layers/ops/interval_attention/cuda_cases.h"

namespace longreach::test {
namespace {

CudaRun sm90() { return {.options = {.architecture = 90, .path = interval::ForwardPath::kTiles}}; }

AttentionCase dense_case(int64_t queries, int64_t keys, int64_t heads, int64_t key_heads, int64_t size) {
  AttentionCase c{.batch = 1, .queries = queries, .keys = keys, .heads = heads};
  c.key_heads = c.value_heads = key_heads;
  c.qk_size = c.v_size = size;
  return c;
}

void expect_matches(AttentionCase c, at::ScalarType dtype = at::kBFloat16) {
  for (const bool causal : {true, false}) {
    c.mask.causal = causal;
    expect_cuda_matches(c, dtype, sm90());
  }
}

TEST(DenseAttentionPtx, RunsItsOwnKernels) {
  const CudaResult found = run_cuda(dense_case(70, 70, 1, 1, 64), at::kBFloat16, sm90());
  ASSERT_EQ(found.reports.size(), 4u);
  EXPECT_EQ(found.reports[0].kernel, "interval_attention_dense_forward_bf16_64");
  EXPECT_EQ(found.reports[2].kernel, "interval_attention_dense_query_gradient_bf16_64");
  EXPECT_EQ(found.reports[3].kernel, "interval_attention_dense_key_gradient_bf16_64");
}

TEST(DenseAttentionPtx, LengthsAroundTheTiles) {
  for (const int64_t length : {1, 63, 64, 65, 128, 200, 257})
    expect_matches(dense_case(length, length, 1, 1, 64));
}

TEST(DenseAttentionPtx, LengthsAroundTheTilesWithWideHeads) {
  for (const int64_t length : {1, 63, 64, 65, 128, 200, 257})
    expect_matches(dense_case(length, length, 1, 1, 128));
}

TEST(DenseAttentionPtx, StagesAreUsedAgain) {
  expect_matches(dense_case(130, 1300, 1, 1, 64));
  expect_matches(dense_case(650, 130, 1, 1, 128));
}

TEST(DenseAttentionPtx, Float16) {
  for (const int64_t size : {64, 128}) expect_matches(dense_case(150, 150, 2, 1, size), at::kHalf);
}

void expect_groups(int64_t size) {
  for (const auto& [heads, key_heads] : std::vector<std::pair<int64_t, int64_t>>{{4, 1}, {4, 2}, {3, 3}}) {
    AttentionCase c = dense_case(70, 70, heads, key_heads, size);
    c.batch = 2;
    expect_matches(c);
  }
}

TEST(DenseAttentionPtx, GroupedHeadsAndBatches) { expect_groups(64); }
TEST(DenseAttentionPtx, GroupedWideHeadsAndBatches) { expect_groups(128); }

TEST(DenseAttentionPtx, FewerKeyThanValueHeadsInTheForwardPass) {
  AttentionCase c = dense_case(100, 100, 4, 1, 64);
  c.value_heads = 2;
  expect_matches(c);
}

// With more queries than keys, the first see nothing under a causal mask.
TEST(DenseAttentionPtx, FewerAndMoreQueriesThanKeys) {
  for (const auto& [queries, keys] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 150}, {70, 300}, {300, 70}, {257, 1}})
    for (const int64_t size : {64, 128}) expect_matches(dense_case(queries, keys, 2, 1, size));
}

TEST(DenseAttentionPtx, RowsThatSeeNothing) {
  const CudaResult found = run_cuda(dense_case(300, 100, 1, 1, 64), at::kBFloat16, sm90());
  EXPECT_TRUE(found.minus_infinity.narrow(2, 0, 200).all().item<bool>());
  EXPECT_FALSE(found.minus_infinity.narrow(2, 200, 100).any().item<bool>());
  for (const size_t rows : {0, 2})
    EXPECT_EQ(found.tensors[rows].narrow(1, 0, 200).abs().max().item<float>(), 0.0f);
}

TEST(DenseAttentionPtx, LargeLogits) {
  for (const int64_t size : {64, 128}) {
    AttentionCase c = dense_case(200, 200, 1, 1, size);
    c.magnitude = 8.0;
    expect_matches(c);
  }
}

// Behind the last query of a head lie the terms of the next, whose lse may be so low that exp(-lse) is
// infinite.
TEST(DenseAttentionPtx, TermsOfTheNextHeadAddNothing) {
  AttentionCase c = dense_case(70, 70, 8, 8, 64);
  c.magnitude = 500.0;
  expect_cuda_matches(c, at::kBFloat16, sm90());
}

TEST(DenseAttentionPtx, StridedInputs) {
  for (const Layout layout : {Layout::kHeadMajor, Layout::kGaps}) {
    AttentionCase c = dense_case(70, 90, 4, 2, 64);
    c.batch = 2;
    CudaRun how = sm90();
    how.layout = layout;
    expect_cuda_matches(c, at::kBFloat16, how);
  }
}

// The order in which blocks and warps run does not change a bit, nor shows a race.
TEST(DenseAttentionPtx, BitsDoNotDependOnTheSchedule) {
  for (const int64_t size : {64, 128}) {
    const AttentionCase c = dense_case(260, 260, 2, 1, size);
    CudaRun how = sm90();
    const CudaResult in_order = run_cuda(c, at::kBFloat16, how);
    for (const uint64_t schedule : {1, 2, 3}) {
      how.schedule = schedule;
      const CudaResult other = run_cuda(c, at::kBFloat16, how);
      for (size_t i = 0; i < other.tensors.size(); ++i)
        EXPECT_TRUE(at::equal(other.tensors[i], in_order.tensors[i])) << i;
    }
  }
}

TEST(DenseAttentionPtx, TrafficIsWhatTheTilesNeed) {
  for (const int64_t size : {64, 128}) {
    CudaRun how = sm90();
    how.profile = true;
    for (const ptx::Report& report : run_cuda(dense_case(256, 256, 2, 1, size), at::kBFloat16, how).reports) {
      EXPECT_LE(report.shared_wavefront_ratio(), 1.05) << report.text();
      EXPECT_LE(report.sector_ratio(), 1.10) << report.text();
    }
  }
}

}  // namespace
}  // namespace longreach::test
