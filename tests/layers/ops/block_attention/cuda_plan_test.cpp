// Launch plans of block attention without a device: which kernels, how many blocks, what is refused.
#include "layers/ops/block_attention/cuda/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace longreach::block {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

// Dense tensors at addresses that nobody reads; one document.
struct Problem {
  PackedDocument document;
  Params p{};

  Problem(DType dtype, int64_t tokens, int64_t heads, int64_t key_heads, int64_t size, int64_t query_block)
      : document{0, tokens, 0, tokens, 0, ceil_div(tokens, query_block)} {
    const auto view = [&](uintptr_t address, int64_t head_count) {
      return Strided{reinterpret_cast<void*>(address), tokens * head_count * size, head_count * size, size};
    };
    p.dtype = dtype;
    p.batches = 1, p.queries = p.keys = tokens, p.heads = heads;
    p.key_heads = p.value_heads = p.list_heads = key_heads, p.qk_size = p.v_size = size;
    p.scale = 1.0f;
    p.q = view(0x1000000, heads), p.k = view(0x2000000, key_heads), p.v = view(0x3000000, key_heads);
    p.o = view(0x4000000, heads);
    p.lse = reinterpret_cast<float*>(0x5000000);
    p.causal = true;
    p.query_block = query_block, p.key_block = 64;
    p.indices = reinterpret_cast<const int32_t*>(0x6000000);
    p.list_batches = 1, p.rows = document.rows, p.slots = 8;
    p.documents = &document, p.document_count = 1;
  }
  Gradients gradients() const { return {p.o, nullptr, p.q, p.k, p.v}; }
};

std::vector<std::string> kernels(const cuda::Plan& plan) {
  std::vector<std::string> names;
  for (const cuda::Launch& launch : plan.launches) {
    const std::string& name = launch.kernel;
    names.push_back(name.starts_with("block_attention_") ? name.substr(16) : name);
  }
  return names;
}

TEST(BlockAttentionPlan, TilesFollowTheRowsOfTheLists) {
  const Problem token(DType::kBFloat16, 1000, 32, 2, 128, 1);
  const cuda::Plan plan = plan_forward(token.p, nullptr);
  EXPECT_THAT(kernels(plan), ElementsAre("forward_16_bf16_128_128"));
  EXPECT_EQ(plan.launches[0].grid.x, 1000u * 2);
  EXPECT_EQ(plan.workspace_bytes, 0u);
  const Problem small(DType::kBFloat16, 1000, 2, 2, 64, 40);
  EXPECT_THAT(kernels(plan_forward(small.p, nullptr)), ElementsAre("forward_64_bf16_64_64"));
  const Problem large(DType::kFloat16, 1000, 8, 2, 64, 64);
  const cuda::Plan tiles = plan_forward(large.p, nullptr);
  EXPECT_THAT(kernels(tiles), ElementsAre("forward_128_fp16_64_64"));
  EXPECT_EQ(tiles.launches[0].grid.x, 16u * 2 * 2);  // 16 rows of 64 queries and 4 heads, two groups
  Problem wide(DType::kFloat32, 1000, 8, 2, 192, 64);
  wide.p.v_size = 100;
  EXPECT_THAT(kernels(plan_forward(wide.p, nullptr)), ElementsAre("forward_64_fp32_192_128"));
}

TEST(BlockAttentionPlan, StatisticsAreALaunchOfTheirOwn) {
  Problem x(DType::kBFloat16, 1000, 8, 2, 64, 64);
  x.p.block_max = x.p.block_sum = reinterpret_cast<float*>(0x7000000);
  const cuda::Plan heads = plan_forward(x.p, nullptr);
  EXPECT_THAT(kernels(heads), ElementsAre("forward_128_bf16_64_64", "statistics_bf16_64"));
  EXPECT_EQ(heads.launches[1].grid.x, 16u * 8);
  x.p.per_list = true;
  EXPECT_EQ(plan_forward(x.p, nullptr).launches[1].grid.x, 16u * 2);
}

TEST(BlockAttentionPlan, BackwardKernelsInOrder) {
  const Problem x(DType::kBFloat16, 1000, 32, 2, 64, 1);
  EXPECT_THAT(kernels(plan_backward(x.p, x.gradients(), nullptr)),
              ElementsAre("attention_rows_row_terms_bf16", "query_gradient_16_bf16_64_64", "transpose_count",
                          "transpose_scan", "transpose_fill", "key_gradient_64_bf16_64_64"));
  Problem y(DType::kFloat32, 1000, 8, 4, 128, 64);
  y.p.value_heads = 2, y.p.key_block = 128;
  EXPECT_THAT(
      kernels(plan_backward(y.p, y.gradients(), nullptr)),
      ElementsAre("attention_rows_row_terms_fp32", "query_gradient_64_fp32_128_128", "transpose_count",
                  "transpose_scan", "transpose_fill", "key_gradient_k_32_fp32_128_128",
                  "key_gradient_v_32_fp32_128_128", "attention_rows_sum_heads_fp32"));
}

TEST(BlockAttentionPlan, TheTransposeTakesAtMost256CountersABlock) {
  const Problem x(DType::kBFloat16, 1 << 20, 1, 1, 64, 1);
  const size_t tokens = 1 << 20, blocks = tokens / 64;
  EXPECT_LE(plan_backward(x.p, x.gradients(), nullptr).workspace_bytes,
            tokens * 8 + 256 * blocks * 4 + blocks * 4 + tokens * 8 * 4 + 1024);
}

TEST(BlockAttentionPlan, DocumentsAreUploadedWhereThereAreMany) {
  Problem x(DType::kBFloat16, 300, 4, 2, 64, 64);
  const PackedDocument documents[] = {
      {0, 129, 0, 129, 0, 3}, {129, 0, 129, 0, 3, 0}, {129, 171, 129, 171, 3, 3}};
  x.p.documents = documents, x.p.document_count = 3, x.p.rows = 6;
  const cuda::Plan plan = plan_forward(x.p, nullptr);
  EXPECT_EQ(plan.upload.size(), 3u * 32);
  EXPECT_EQ(plan.launches[0].grid.x, 6u * 2);
}

TEST(BlockAttentionPlan, NothingToDoLaunchesNothing) {
  EXPECT_TRUE(plan_forward(Problem(DType::kBFloat16, 0, 4, 2, 64, 64).p, nullptr).launches.empty());
  const Problem none(DType::kBFloat16, 0, 4, 2, 64, 64);
  EXPECT_TRUE(plan_backward(none.p, none.gradients(), nullptr).launches.empty());
}

TEST(BlockAttentionPlan, HeadDimsThatAreNotBuilt) {
  EXPECT_THAT(
      [] { plan_forward(Problem(DType::kBFloat16, 100, 4, 2, 256, 64).p, nullptr); },
      ThrowsMessage<ShapeError>(HasSubstr("head dimensions 256/256; CUDA kernels in bf16 are built for "
                                          "64/64, 128/128, 192/128 and anything below")));
  EXPECT_THAT([] { plan_forward(Problem(static_cast<DType>(7), 100, 4, 2, 64, 64).p, nullptr); },
              ThrowsMessage<DtypeError>(HasSubstr("built for float32, bfloat16 and float16")));
  EXPECT_THAT([] { plan_forward(Problem(DType::kBFloat16, int64_t{1} << 30, 1, 1, 64, 4096).p, nullptr); },
              ThrowsMessage<ShapeError>(HasSubstr("1073741824 tokens")));
}

}  // namespace
}  // namespace longreach::block
