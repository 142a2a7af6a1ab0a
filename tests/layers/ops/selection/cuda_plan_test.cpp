// Launch plans of selection without a device: tiles of rows and chunks of heads, what fits and what is
// refused.
#include "layers/ops/selection/cuda/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "core/error.h"
#include "layers/ops/document.h"

namespace longreach::selection {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr int64_t kTokens = 131072;

// Tokens as rows, windows of 32 in strides of 16, blocks of 64: NSA.
SelectParams nsa(DType dtype, int64_t tokens, int64_t heads, int64_t key_heads, int64_t lists, int64_t size) {
  SelectParams p{.dtype = dtype, .batches = 1};
  p.heads = heads, p.key_heads = key_heads, p.lists = lists, p.size = size;
  p.width = 32, p.stride = 16;
  p.key_count = (tokens - 32) / 16 + 1;
  p.q = {reinterpret_cast<void*>(0x1000000), tokens * heads * size, heads * size, size};
  p.k = {reinterpret_cast<void*>(0x2000000), p.key_count * key_heads * size, key_heads * size, size};
  p.rule.rows = tokens, p.rule.blocks = tokens / 64;
  p.rule.documents = {{.keys = tokens, .rows = tokens, .windows = p.key_count}};
  p.rule.budgets = {16};
  p.rule.size = 16;
  p.rule.indices = p.rule.status = reinterpret_cast<int32_t*>(0x3000000);
  return p;
}

CudaSelect parameters(const cuda::Plan& plan) {
  CudaSelect select{};
  EXPECT_EQ(plan.launches.size(), 1u);
  std::memcpy(&select, plan.launches[0].parameters.data(), sizeof(select));
  return select;
}

TEST(SelectionPlan, RowsOf128KTokensFit) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat32})
    for (const int64_t size : {64, 128}) {
      const cuda::Plan plan = plan_select(nsa(dtype, kTokens, 64, 4, 4, size), nullptr);
      const CudaSelect select = parameters(plan);
      EXPECT_EQ(select.chunk, 16);
      EXPECT_EQ(select.chunks, 1);
      EXPECT_GE(select.tile_rows, dtype == DType::kFloat32 && size == 128 ? 3 : 4);
      EXPECT_LE(plan.launches[0].shared_bytes, static_cast<uint32_t>(kSharedBytes));
      EXPECT_EQ(plan.launches[0].grid.x, 4 * ceil_div(kTokens, select.tile_rows));
      EXPECT_EQ(plan.workspace_bytes, 0u) << "nothing of the size of queries x blocks";
    }
}

// A list's heads go together where they share keys, else in chunks; with few blocks a tile has 64 products.
TEST(SelectionPlan, ChunksOfHeads) {
  const auto cut = [](int64_t heads, int64_t key_heads, int64_t lists) {
    const CudaSelect s =
        parameters(plan_select(nsa(DType::kBFloat16, 1024, heads, key_heads, lists, 64), nullptr));
    return std::vector<int32_t>{s.chunk, s.chunks, s.tile_rows};
  };
  EXPECT_EQ(cut(32, 2, 2), (std::vector<int32_t>{16, 1, 4}));
  EXPECT_EQ(cut(8, 8, 8), (std::vector<int32_t>{1, 1, 64}));
  EXPECT_EQ(cut(6, 3, 1), (std::vector<int32_t>{2, 3, 32}));
  EXPECT_EQ(cut(6, 2, 3), (std::vector<int32_t>{1, 2, 64}));
  EXPECT_EQ(cut(80, 1, 1), (std::vector<int32_t>{40, 2, 1}));
  EXPECT_EQ(cut(128, 1, 1), (std::vector<int32_t>{64, 2, 1}));
}

TEST(SelectionPlan, WhatIsNotBuilt) {
  EXPECT_THAT(
      [] { plan_select(nsa(DType::kBFloat16, 1024, 4, 2, 2, 192), nullptr); },
      ThrowsMessage<ShapeError>(HasSubstr("head dimension 192; CUDA kernels in bf16 are built for 64, 128")));
  EXPECT_THAT([] { plan_select(nsa(static_cast<DType>(7), 1024, 4, 2, 2, 64), nullptr); },
              ThrowsMessage<DtypeError>(HasSubstr("built for float32, bfloat16 and float16")));
  EXPECT_THAT(
      [] { plan_select(nsa(DType::kFloat32, 64 * 20000, 4, 4, 4, 128), nullptr); },
      ThrowsMessage<ShapeError>(HasSubstr("20000 blocks a row, CUDA kernels of select_blocks in fp32 with "
                                          "head dimension 128 and 1 heads a list hold at most")));
  EXPECT_NO_THROW(plan_select(nsa(DType::kFloat32, 64 * 6656, 4, 4, 4, 128), nullptr));
}

TEST(SelectionPlan, LongRowsOfGivenScores) {
  ChooseParams p{.rule = nsa(DType::kFloat32, kTokens, 1, 1, 1, 64).rule, .lists = 3};
  const auto warps = [&](int64_t blocks) {
    p.rule.blocks = blocks;
    const cuda::Plan plan = plan_choose(p, nullptr);
    EXPECT_LE(plan.launches[0].shared_bytes, static_cast<uint32_t>(kSharedBytes));
    EXPECT_EQ(plan.launches[0].grid.x, 3 * kTokens * 32 / plan.launches[0].block.x);
    return plan.launches[0].block.x / 32;
  };
  EXPECT_EQ(warps(2048), 4u);
  EXPECT_EQ(warps(10000), 2u);
  EXPECT_EQ(warps(25344), 1u);
  EXPECT_THROW(warps(25345), ShapeError);
}

TEST(SelectionPlan, DocumentsAreUploadedWhereThereAreMany) {
  SelectParams p = nsa(DType::kBFloat16, 300, 8, 8, 8, 64);
  p.rule.documents = {{.keys = 129, .rows = 129, .windows = 7},
                      {.row = 129, .window = 7},
                      {.keys = 171, .row = 129, .rows = 171, .window = 7, .windows = 9}};
  p.rule.budgets = {16, 16, 16};
  p.rule.blocks = 3;
  const cuda::Plan plan = plan_select(p, nullptr);
  EXPECT_EQ(plan.upload.size(), 3u * 32);
  EXPECT_EQ(plan.launches[0].grid.x, 8u * (3 + 3));
}

TEST(SelectionPlan, NothingToDoLaunchesNothing) {
  SelectParams p = nsa(DType::kBFloat16, 64, 4, 2, 2, 64);
  p.rule.rows = p.rule.blocks = p.key_count = 0;
  p.rule.documents = {{}};
  EXPECT_TRUE(plan_select(p, nullptr).launches.empty());
  ChooseParams none{.rule = p.rule, .lists = 3};
  EXPECT_TRUE(plan_choose(none, nullptr).launches.empty());
}

}  // namespace
}  // namespace longreach::selection
