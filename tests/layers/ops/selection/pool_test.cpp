// pool_blocks: each pool against plain loops and the float64 reference, gradients, ties, packed documents.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>
#include <random>

#include "core/error.h"
#include "layers/ops/cpu/parallel.h"
#include "layers/ops/selection/selection.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {
namespace {

using ::testing::HasSubstr;
const std::vector<Pool> kAll{Pool::max, Pool::min, Pool::mean};

at::Tensor bounds(std::initializer_list<int> values) {
  return at::tensor(std::vector<int>(values), at::kInt);
}

// The pooled tensor and the gradient of x for a fixed gradient of it.
std::vector<at::Tensor> run(const at::Tensor& input, const std::vector<Pool>& pools,
                            const PoolWindows& windows, bool fused) {
  const at::Tensor x = input.detach().requires_grad_(true);
  const at::Tensor pooled = (fused ? pool_blocks : pool_blocks_reference)(x, pools, windows);
  if (pooled.numel() == 0) return {pooled};
  const at::Tensor grad = normal(pooled.sizes(), 9, at::kFloat).to(pooled.scalar_type());
  return {pooled.detach(), torch::autograd::grad({pooled}, {x}, {grad})[0]};
}

void expect_matches(at::IntArrayRef shape, const std::vector<Pool>& pools, const PoolWindows& windows,
                    at::ScalarType dtype) {
  const at::Tensor x = normal(shape, 1, dtype);
  const auto exact = run(x.to(at::kDouble), pools, windows, false), plain = run(x, pools, windows, false),
             fused = run(x, pools, windows, true);
  ASSERT_EQ(fused.size(), exact.size());
  for (size_t i = 0; i < exact.size(); ++i) {
    ASSERT_EQ(fused[i].sizes(), exact[i].sizes());
    EXPECT_EQ(fused[i].scalar_type(), dtype);
    if (exact[i].numel() == 0) continue;
    const double own = relative_error(plain[i], exact[i]), floor = dtype == at::kFloat ? 1e-6 : 4e-3;
    EXPECT_LE(relative_error(fused[i], exact[i]), std::max(floor, 2 * own)) << i << " of " << shape;
  }
}

TEST(PoolBlocks, EveryPoolAloneAndTogether) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const Pool pool : kAll) expect_matches({2, 70, 3, 20}, {pool}, {.width = 16, .stride = 16}, dtype);
    expect_matches({2, 70, 3, 20}, kAll, {.width = 16, .stride = 16}, dtype);
    expect_matches({1, 70, 2, 33}, {Pool::min, Pool::min, Pool::mean}, {.width = 64, .stride = 64}, dtype);
  }
}

TEST(PoolBlocks, OverlappingAndGappedWindows) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const auto& [width, stride] :
         std::vector<std::pair<int64_t, int64_t>>{{32, 16}, {16, 4}, {7, 3}, {3, 7}, {5, 1}, {80, 16}})
      expect_matches({1, 77, 2, 16}, kAll, {.width = width, .stride = stride, .partial = false}, dtype);
}

TEST(PoolBlocks, LengthsAroundTheWindows) {
  for (const int64_t tokens : {0, 1, 15, 16, 17, 31, 32, 33, 64, 65, 130})
    for (const bool partial : {false, true})
      expect_matches({1, tokens, 1, 8}, kAll, {.width = 16, .stride = 16, .partial = partial}, at::kFloat);
}

TEST(PoolBlocks, RandomShapes) {
  std::mt19937 random(3);
  const auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int i = 0; i < 200; ++i) {
    const int64_t width = draw(1, 40);
    const bool partial = draw(0, 1) == 0;
    std::vector<Pool> pools;
    for (int64_t n = draw(1, 4); n > 0; --n) pools.push_back(kAll[draw(0, 2)]);
    expect_matches({draw(1, 2), draw(0, 90), draw(1, 3), draw(1, 70)}, pools,
                   {.width = width, .stride = partial ? width : draw(1, 40), .partial = partial},
                   draw(0, 1) == 0 ? at::kFloat : at::kBFloat16);
  }
}

TEST(PoolBlocks, PackedDocumentsAreEachAlone) {
  const at::Tensor x = normal({1, 100, 2, 12}, 4, at::kFloat);
  const std::vector<int64_t> lengths{0, 33, 5, 0, 62};
  for (const bool overlapping : {false, true}) {
    PoolWindows windows{.width = 16, .stride = overlapping ? 8 : 16, .partial = !overlapping};
    std::vector<at::Tensor> alone, grads;
    int64_t first = 0;
    for (const int64_t length : lengths) {
      alone.push_back(pool_blocks(x.narrow(1, first, length), kAll, windows));
      first += length;
    }
    windows.cu_seqlens = bounds({0, 0, 33, 38, 38, 100});
    EXPECT_TRUE(at::equal(pool_blocks(x, kAll, windows), at::cat(alone, 1)));
    EXPECT_EQ(window_count(windows, 100), at::cat(alone, 1).size(1));
    const at::Tensor starts = window_cu_seqlens(windows);
    for (size_t n = 0; n < alone.size(); ++n)
      EXPECT_EQ((starts[n + 1] - starts[n]).item<int>(), alone[n].size(1));
    expect_matches({1, 100, 2, 12}, kAll, windows, at::kFloat);
  }
}

// Two windows over 4 tokens with equal values: the first token of each gets the gradient.
TEST(PoolBlocks, TiesGiveTheirGradientToTheFirstToken) {
  const at::Tensor values = at::tensor({2.0f, 5.0f, 5.0f, 2.0f, 7.0f, 7.0f}).view({1, 6, 1, 1});
  for (const bool fused : {false, true}) {
    const at::Tensor x = values.clone().requires_grad_(true);
    const at::Tensor pooled = (fused ? pool_blocks : pool_blocks_reference)(
        x, {Pool::max, Pool::min}, {.width = 4, .stride = 2, .partial = false});
    EXPECT_TRUE(at::equal(pooled.flatten(), at::tensor({5.0f, 2.0f, 7.0f, 2.0f})));
    const at::Tensor grad = at::tensor({1.0f, 10.0f, 100.0f, 1000.0f}).view({1, 2, 1, 2});
    const at::Tensor dx = torch::autograd::grad({pooled}, {x}, {grad})[0].flatten();
    EXPECT_TRUE(at::equal(dx, at::tensor({10.0f, 1.0f, 0.0f, 1000.0f, 100.0f, 0.0f}))) << dx;
  }
}

TEST(PoolBlocks, NanIsTheLargestAndTheSmallest) {
  at::Tensor x = normal({1, 8, 1, 4}, 5, at::kFloat);
  x.select(1, 3).fill_(std::numeric_limits<float>::quiet_NaN());
  const at::Tensor pooled = pool_blocks(x, kAll, {.width = 4, .stride = 4});
  EXPECT_TRUE(pooled.select(1, 0).isnan().all().item<bool>());
  EXPECT_FALSE(pooled.select(1, 1).isnan().any().item<bool>());
}

TEST(PoolBlocks, ReferenceMatchesCentralDifferences) {
  for (const auto& windows :
       {PoolWindows{.width = 5, .stride = 5}, PoolWindows{.width = 6, .stride = 2, .partial = false},
        PoolWindows{.width = 4, .stride = 4, .cu_seqlens = bounds({0, 9, 9, 17})}})
    EXPECT_LE(
        gradient_error(
            [&](const std::vector<at::Tensor>& in) { return pool_blocks_reference(in[0], kAll, windows); },
            {normal({1, 17, 2, 3}, 6)}),
        1e-6);
}

TEST(PoolBlocks, StridedInputs) {
  const at::Tensor x = normal({2, 3, 50, 24}, 7, at::kFloat);
  const PoolWindows windows{.width = 16, .stride = 16};
  EXPECT_TRUE(at::equal(pool_blocks(x.transpose(1, 2), kAll, windows),
                        pool_blocks(x.transpose(1, 2).contiguous(), kAll, windows)));
  EXPECT_TRUE(at::equal(pool_blocks(x.permute({0, 2, 3, 1}), kAll, windows),
                        pool_blocks(x.permute({0, 2, 3, 1}).contiguous(), kAll, windows)));
}

TEST(PoolBlocks, ThreadsDoNotChangeBits) {
  const int before = num_threads();
  const at::Tensor x = normal({1, 1000, 4, 64}, 8, at::kFloat);
  const PoolWindows windows{.width = 32, .stride = 16, .partial = false};
  set_num_threads(1);
  const auto one = run(x, kAll, windows, true);
  set_num_threads(3);
  const auto three = run(x, kAll, windows, true);
  set_num_threads(before);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], three[i]));
}

std::string message(const std::function<void()>& call) {
  try {
    call();
  } catch (const UserError& error) {
    return error.what();
  }
  return {};
}

TEST(PoolBlocks, BadArguments) {
  const at::Tensor x = normal({1, 20, 1, 8}, 1, at::kFloat);
  EXPECT_THAT(message([&] { pool_blocks(x, {}, {}); }), HasSubstr("pools"));
  EXPECT_THAT(message([&] { pool_blocks(x, kAll, {.width = 0, .stride = 0}); }), HasSubstr("width"));
  EXPECT_THAT(message([&] { pool_blocks(x, kAll, {.width = 8, .stride = 4}); }), HasSubstr("stride: 4"));
  EXPECT_THAT(message([&] { pool_blocks(x.to(at::kDouble), kAll, {}); }), HasSubstr("pool_blocks_reference"));
  EXPECT_THAT(message([&] {
                pool_blocks(x, kAll, {.cu_seqlens = bounds({0, 19})});
              }),
              HasSubstr("expected from 0 to 20"));
  EXPECT_THAT(message([&] {
                pool_blocks(normal({2, 20, 1, 8}, 1, at::kFloat), kAll, {.cu_seqlens = bounds({0, 20})});
              }),
              HasSubstr("batch entries"));
  EXPECT_THAT(message([&] { window_count({.cu_seqlens = bounds({0, 5, 3})}, 3); }), HasSubstr("falls"));
}

}  // namespace
}  // namespace longreach::test
