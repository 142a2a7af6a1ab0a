// The CUDA kernels of block attention, run from their PTX through the product's launch plans, against the
// float64 reference: every feature, every built tile and pair of head dims, traffic of shared and global
// memory.
#include <ATen/ops/equal.h>

#include "tests/layers/ops/block_attention/cuda_cases.h"

namespace longreach::test {
namespace {

TEST(BlockAttentionPtx, LengthsAroundTheBlocks) {
  for (const int64_t length : {0, 1, 63, 64, 65, 200, 257})
    for (const bool causal : {true, false})
      expect_block_cuda_matches({.queries = length, .keys = length, .causal = causal}, at::kBFloat16);
}

// One token a row, all heads of a group together.
TEST(BlockAttentionPtx, GroupsOfHeadsOfOneToken) {
  for (const int64_t group : {1, 4, 6, 16})
    for (const int64_t length : {1, 65}) {
      BlockCudaCase c{
          .queries = length, .keys = length, .heads = 2 * group, .key_heads = 2, .value_heads = 2};
      c.list_heads = 2, c.query_block = 1, c.key_block = 16;
      expect_block_cuda_matches(c, at::kBFloat16);
    }
}

void expect_block_sizes(int64_t query_block) {
  for (const int64_t key_block : {16, 32, 64, 128}) {
    BlockCudaCase c{.queries = 200, .keys = 200, .query_block = query_block, .key_block = key_block};
    if (query_block == 1) c.queries = c.keys = 140;
    expect_block_cuda_matches(c, at::kBFloat16);
    c.causal = false;
    c.queries = 40;
    expect_block_cuda_matches(c, at::kHalf);
  }
}

TEST(BlockAttentionPtx, KeyBlocksForOneQuery) { expect_block_sizes(1); }
TEST(BlockAttentionPtx, KeyBlocksFor16Queries) { expect_block_sizes(16); }
TEST(BlockAttentionPtx, KeyBlocksFor64Queries) { expect_block_sizes(64); }
TEST(BlockAttentionPtx, KeyBlocksFor128Queries) { expect_block_sizes(128); }
TEST(BlockAttentionPtx, KeyBlocksForOddNumbersOfQueries) {
  for (const int64_t query_block : {7, 90, 300}) expect_block_sizes(query_block);
}

// Every tile and pair that is built (two heads: rows of 16, 64 and 128), and sizes that are filled up to it.
void expect_head_dims(at::ScalarType dtype, int64_t qk, int64_t v) {
  for (const auto& [query_block, key_block] :
       std::vector<std::pair<int64_t, int64_t>>{{2, 32}, {20, 64}, {64, 64}}) {
    BlockCudaCase c{.queries = 100, .keys = 100, .qk_size = qk, .v_size = v};
    c.query_block = query_block, c.key_block = key_block;
    if (query_block == 64) c.statistics = BlockStatistics::per_head;
    expect_block_cuda_matches(c, dtype);
  }
}

const std::vector<std::pair<int64_t, int64_t>> kPairs{{64, 64}, {128, 128}, {192, 128}};

TEST(BlockAttentionPtx, HeadDimsInBFloat16) {
  for (const auto& [qk, v] : kPairs) expect_head_dims(at::kBFloat16, qk, v);
}
TEST(BlockAttentionPtx, HeadDimsInFloat16) {
  for (const auto& [qk, v] : kPairs) expect_head_dims(at::kHalf, qk, v);
}
TEST(BlockAttentionPtx, HeadDimsInFloat32) {
  for (const auto& [qk, v] : kPairs) expect_head_dims(at::kFloat, qk, v);
}
TEST(BlockAttentionPtx, HeadDimsBetweenTheBuiltOnes) {
  for (const auto& [qk, v] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {17, 40}, {150, 80}})
    for (const auto dtype : {at::kBFloat16, at::kFloat}) expect_head_dims(dtype, qk, v);
}

// One list for all, one a group, one a head; key and value heads that are shared differently; lists of each
// batch entry.
TEST(BlockAttentionPtx, ListsAndSharedHeads) {
  for (const auto& [k, v, lists] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
           {1, 1, 1}, {2, 2, 2}, {2, 2, 1}, {2, 2, 6}, {1, 6, 3}, {2, 3, 2}, {6, 2, 6}})
    for (const auto dtype : {at::kBFloat16, at::kFloat}) {
      BlockCudaCase c{.queries = 70, .keys = 70, .heads = 6, .key_heads = k, .value_heads = v};
      c.qk_size = 40, c.v_size = 32, c.list_heads = lists, c.query_block = 16, c.key_block = 16;
      if (dtype == at::kBFloat16) c.batch = 2, c.list_batches = lists == 2 ? 2 : 1;
      expect_block_cuda_matches(c, dtype);
    }
}

TEST(BlockAttentionPtx, FewerAndMoreQueriesThanKeys) {
  for (const auto& [queries, keys] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 150}, {70, 200}, {200, 70}, {5, 0}, {0, 9}})
    for (const bool causal : {true, false}) {
      BlockCudaCase c{.queries = queries, .keys = keys, .query_block = 16, .key_block = 32, .causal = causal};
      expect_block_cuda_matches(c, at::kBFloat16);
    }
}

BlockCudaCase packed(int64_t query_block, int64_t key_block) {
  BlockCudaCase c{.queries = 260, .keys = 300, .heads = 4, .key_heads = 2, .value_heads = 1};
  c.list_heads = 2, c.query_block = query_block, c.key_block = key_block;
  c.q_bounds = {0, 0, 70, 71, 200, 200, 260, 260};
  c.k_bounds = {0, 5, 70, 90, 220, 220, 300, 300};
  return c;
}

TEST(BlockAttentionPtx, PackedDocuments) {
  for (const auto& [query_block, key_block] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 16}, {16, 32}, {64, 64}, {128, 128}}) {
    BlockCudaCase c = packed(query_block, key_block);
    c.statistics = BlockStatistics::per_list;
    expect_block_cuda_matches(c, at::kBFloat16);
  }
  BlockCudaCase c = packed(20, 64);
  c.causal = false;
  expect_block_cuda_matches(c, at::kFloat);
}

TEST(BlockAttentionPtx, LargeLogits) {
  for (const auto dtype : {at::kBFloat16, at::kHalf, at::kFloat}) {
    BlockCudaCase c{.queries = 200, .keys = 200, .query_block = 16, .magnitude = 8.0};
    c.statistics = BlockStatistics::per_head;
    expect_block_cuda_matches(c, dtype);
  }
}

TEST(BlockAttentionPtx, NegativeAndZeroScale) {
  for (const double scale : {-0.7, 0.0, 0.5})
    for (const auto dtype : {at::kBFloat16, at::kFloat}) {
      BlockCudaCase c{.queries = 100, .keys = 100, .key_block = 32, .scale = scale};
      c.statistics = BlockStatistics::per_list;
      expect_block_cuda_matches(c, dtype);
    }
}

TEST(BlockAttentionPtx, StatisticsOfHeadsAndLists) {
  for (const auto how : {BlockStatistics::per_head, BlockStatistics::per_list})
    for (const auto& [query_block, key_block, lists] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
             {1, 16, 2}, {16, 32, 1}, {64, 64, 4}, {100, 128, 2}, {128, 16, 1}}) {
      BlockCudaCase c{.batch = 2, .queries = 130, .keys = 150, .heads = 4, .key_heads = 2, .value_heads = 4};
      c.qk_size = c.v_size = 32, c.list_heads = lists, c.query_block = query_block, c.key_block = key_block;
      if (query_block == 1) c.batch = 1, c.queries = 20;
      c.statistics = how;
      expect_block_cuda_matches(c, at::kBFloat16);
    }
}

// Several tiles of queries a row, so that entries are added to.
TEST(BlockAttentionPtx, StatisticsKeepNan) {
  for (const auto dtype : {at::kBFloat16, at::kFloat}) {
    BlockCudaCase c{.queries = 200, .keys = 200, .query_block = 100, .key_block = 16, .density = 1.0};
    c.statistics = dtype == at::kFloat ? BlockStatistics::per_head : BlockStatistics::per_list;
    c.nan_key = 30;
    const BlockLists lists = random_lists(c);
    const BlockCudaResult found = run_block_cuda(c, lists, dtype);
    const AttentionResult exact = exact_block_attention(c, lists, BlockCudaInputs(c, dtype));
    for (const size_t i : {5, 6}) {
      EXPECT_TRUE(exact[i].isnan().any().item<bool>());
      EXPECT_TRUE(found.tensors[i].isnan().equal(exact[i].isnan())) << i;
      EXPECT_LE(relative_error(found.tensors[i].nan_to_num(), exact[i].nan_to_num()), 5e-5) << i;
    }
  }
}

// Lists without an entry that counts, and no entries at all.
TEST(BlockAttentionPtx, RowsThatSeeNothing) {
  BlockCudaCase c{.queries = 70, .keys = 70, .query_block = 16, .key_block = 32};
  c.statistics = BlockStatistics::per_head;
  BlockLists lists = random_lists(c);
  // The second names a block in its future, the third blocks that do not exist.
  lists.indices = int_tensor({0, -1, 2, -1, 3, -2000000000, 0, 1, -1, 2}, {1, 1, 5, 2});
  const BlockCudaResult found = run_block_cuda(c, lists, at::kBFloat16);
  const AttentionResult exact = exact_block_attention(c, lists, BlockCudaInputs(c, at::kBFloat16));
  for (size_t i = 0; i < exact.size(); ++i) EXPECT_LE(relative_error(found.tensors[i], exact[i]), 1e-2) << i;
  EXPECT_EQ(found.tensors[0].narrow(1, 16, 32).abs().max().item<float>(), 0.0f);
  EXPECT_EQ(found.tensors[2].narrow(1, 16, 32).abs().max().item<float>(), 0.0f);
  EXPECT_TRUE(found.minus_infinity.narrow(2, 16, 32).all().item<bool>());
  EXPECT_FALSE(found.minus_infinity.narrow(2, 0, 16).any().item<bool>());
  lists.indices = int_tensor({}, {1, 1, 5, 0});
  const BlockCudaResult nothing = run_block_cuda(c, lists, at::kBFloat16);
  for (size_t i : {0, 2, 3, 4}) EXPECT_EQ(nothing.tensors[i].abs().max().item<float>(), 0.0f);
  EXPECT_TRUE(nothing.minus_infinity.all().item<bool>());
}

// More entries a row than a warp looks at at once, most of them holes.
TEST(BlockAttentionPtx, LongLists) {
  BlockCudaCase c{.queries = 40, .keys = 700, .query_block = 4, .key_block = 16, .density = 0.7};
  c.statistics = BlockStatistics::per_list;
  expect_block_cuda_matches(c, at::kBFloat16);
  BlockLists lists = random_lists(c);
  const int64_t rows = lists.indices.size(2), slots = 70;
  std::vector<int32_t> entries(static_cast<size_t>(rows * slots), -1);
  for (int64_t row = 0; row < rows; ++row)
    for (const auto& [slot, block] : {std::pair{0, 5}, {40, 3}, {69, 41}})
      entries[static_cast<size_t>(row * slots + slot)] = block;
  lists.indices = int_tensor(entries, {1, 1, rows, slots});
  const BlockCudaResult found = run_block_cuda(c, lists, at::kBFloat16);
  const AttentionResult exact = exact_block_attention(c, lists, BlockCudaInputs(c, at::kBFloat16));
  for (size_t i = 0; i < exact.size(); ++i) EXPECT_LE(relative_error(found.tensors[i], exact[i]), 1e-2) << i;
}

TEST(BlockAttentionPtx, AnyStrides) {
  for (const Layout layout : {Layout::kHeadMajor, Layout::kGaps, Layout::kMisaligned})
    for (const auto dtype : {at::kBFloat16, at::kFloat})
      for (const int64_t size : {64, 27}) {
        BlockCudaCase c{.batch = 2, .queries = 50, .keys = 70, .heads = 4, .key_heads = 2, .value_heads = 2};
        c.qk_size = c.v_size = size, c.list_heads = 2, c.query_block = 16, c.key_block = 32;
        expect_block_cuda_matches(c, dtype, {.layout = layout});
      }
}

// The order in which blocks and warps run does not change a bit.
TEST(BlockAttentionPtx, BitsDoNotDependOnTheSchedule) {
  BlockCudaCase c{.queries = 120, .keys = 120, .heads = 4, .key_heads = 1, .value_heads = 2};
  c.list_heads = 2, c.query_block = 4, c.key_block = 16;
  c.statistics = BlockStatistics::per_list;
  const BlockLists lists = random_lists(c);
  const BlockCudaResult in_order = run_block_cuda(c, lists, at::kBFloat16);
  for (const uint64_t schedule : {1, 2, 3}) {
    const BlockCudaResult other = run_block_cuda(c, lists, at::kBFloat16, {.schedule = schedule});
    for (size_t i = 0; i < other.tensors.size(); ++i)
      EXPECT_TRUE(at::equal(other.tensors[i], in_order.tensors[i])) << i;
  }
}

// At full tiles every shared access is free of conflicts, and global memory is read and written in whole
// sectors. But for the transpose, which puts single numbers where they belong: it moves 4 bytes an entry of
// the lists.
void expect_no_waste(int64_t qk, int64_t v, at::ScalarType dtype) {
  for (const auto& [query_block, heads] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 16}, {64, 1}, {64, 2}}) {
    BlockCudaCase c{.queries = query_block == 1 ? 16 : 64, .keys = 640, .heads = heads};
    c.qk_size = qk, c.v_size = v, c.query_block = query_block;  // eight entries a row: one sector
    c.statistics = BlockStatistics::per_list;
    SCOPED_TRACE(text(c.name(), ' ', at::toString(dtype)));
    for (const ptx::Report& report : run_block_cuda(c, random_lists(c), dtype, {.profile = true}).reports) {
      EXPECT_LE(report.shared_wavefront_ratio(), 1.05) << report.text();
      if (!report.kernel.starts_with("block_attention_transpose")) {
        EXPECT_LE(report.sector_ratio(), 1.10) << report.text();
      }
    }
  }
}

TEST(BlockAttentionPtx, TrafficIsWhatTheTilesNeedInBFloat16) {
  for (const auto& [qk, v] : kPairs) expect_no_waste(qk, v, at::kBFloat16);
}
TEST(BlockAttentionPtx, TrafficIsWhatTheTilesNeedInFloat32) { expect_no_waste(64, 64, at::kFloat); }
TEST(BlockAttentionPtx, TrafficOfWideHeadsInFloat32) { expect_no_waste(128, 128, at::kFloat); }
TEST(BlockAttentionPtx, TrafficOfTheWidestHeadsInFloat32) { expect_no_waste(192, 128, at::kFloat); }

BlockCudaCase random_case(uint64_t seed) {
  Draw draw(seed);
  const int64_t counts[] = {1, 2, 3, 4, 6}, key_blocks[] = {16, 32, 64, 128};
  BlockCudaCase c{.seed = seed};
  c.heads = counts[draw(0, 4)];
  c.key_heads = draw.divisor(c.heads), c.value_heads = draw.divisor(c.heads);
  c.list_heads = draw.divisor(c.heads);
  c.qk_size = draw(1, 128), c.v_size = draw(1, 128);
  c.batch = draw(1, 2), c.queries = draw(0, 150);
  c.keys = draw(0, 2) == 0 ? draw(0, 150) : c.queries;
  c.query_block = draw(0, 1) == 0 ? draw(1, 20) : draw(1, 200);
  c.key_block = key_blocks[draw(0, 3)];
  c.causal = draw(0, 3) != 0;
  c.density = 0.1 * static_cast<double>(draw(1, 10));
  if (draw(0, 2) == 0) {
    c.batch = 1;
    c.q_bounds = draw.cuts(c.queries), c.k_bounds = draw.cuts(c.keys);
  }
  if (draw(0, 1) == 0) c.list_batches = c.batch;
  c.statistics = static_cast<BlockStatistics>(draw(0, 2));
  return c;
}

void expect_random_shapes(uint64_t first, uint64_t last) {
  const at::ScalarType dtypes[] = {at::kBFloat16, at::kFloat, at::kHalf};
  for (uint64_t seed = first; seed <= last; ++seed)
    expect_block_cuda_matches(random_case(seed), dtypes[seed % 3],
                              {.layout = static_cast<Layout>(seed % 4), .schedule = seed});
}

TEST(BlockAttentionPtx, RandomShapes) { expect_random_shapes(1, 15); }
TEST(BlockAttentionPtx, MoreRandomShapes) { expect_random_shapes(16, 30); }

}  // namespace
}  // namespace longreach::test
