// Block attention on a CUDA device, through the same cases and the same limits as on the CPU. Without a
// device every test is skipped and says why.
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include "layers/ops/cuda/backend.h"
#include "tests/layers/ops/block_attention/cases.h"

namespace longreach::test {
namespace {

class BlockDevice : public testing::Test {
 protected:
  void SetUp() override {
    try {
      cuda::backend();
    } catch (const UserError& error) {
      GTEST_SKIP() << "skipped: " << error.what();
    }
  }
};

at::Tensor to_host(const at::Tensor& x) { return x.defined() ? x.to(at::kCPU) : x; }

BlockAttentionOutput on_device(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const BlockLists& lists, const BlockAttentionOptions& options) {
  BlockLists there = lists;
  there.indices = lists.indices.to(at::kCUDA);
  const BlockAttentionOutput out =
      block_attention(q.to(at::kCUDA), k.to(at::kCUDA), v.to(at::kCUDA), there, options);
  return {to_host(out.o), to_host(out.lse), to_host(out.block_max), to_host(out.block_sum)};
}

void expect_on_device(const BlockCase& c) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) expect_matches_reference(c, dtype, on_device);
}

TEST_F(BlockDevice, AllLengths) {
  for (const int64_t length : {1, 63, 64, 65, 200, 257})
    for (const bool causal : {true, false})
      expect_on_device({.queries = length, .keys = length, .qk_size = 64, .v_size = 64, .causal = causal});
}

TEST_F(BlockDevice, AllHeadSizes) {
  for (const auto& [qk, v] :
       std::vector<std::pair<int64_t, int64_t>>{{16, 16}, {64, 64}, {128, 128}, {192, 128}})
    for (const int64_t query_block : {1, 16, 64})
      expect_on_device({.qk_size = qk, .v_size = v, .query_block = query_block});
}

TEST_F(BlockDevice, AllBlockSizes) {
  for (const int64_t query_block : {1, 16, 64, 128})
    for (const int64_t key_block : {16, 32, 64, 128})
      expect_on_device({.queries = 300, .keys = 300, .query_block = query_block, .key_block = key_block});
}

TEST_F(BlockDevice, OneTokenOfAGroup) {
  for (const int64_t group : {1, 4, 6, 16})
    expect_on_device({.queries = 100,
                      .keys = 100,
                      .heads = 2 * group,
                      .key_heads = 2,
                      .value_heads = 2,
                      .qk_size = 128,
                      .v_size = 128,
                      .query_block = 1});
}

TEST_F(BlockDevice, PackedDocuments) {
  BlockCase c{.queries = 200, .keys = 200, .query_block = 16, .key_block = 32};
  c.cu_seqlens_q = c.cu_seqlens_k = int_tensor({0, 0, 70, 70, 199, 200}, {6});
  c.statistics = BlockStatistics::per_list;
  expect_on_device(c);
}

TEST_F(BlockDevice, RandomShapes) {
  for (uint64_t seed = 1; seed <= 30; ++seed) expect_on_device(random_block_case(seed));
}

}  // namespace
}  // namespace longreach::test
