// The CUDA form of selection behind its operators, each kernel interpreted: the cases of the CPU's tests, and
// where both work on the same numbers in the same order, the same bits as the CPU's.
#include <ATen/ops/full.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/error.h"
#include "tests/layers/ops/cuda/interpreted_device.h"
#include "tests/layers/ops/selection/cases.h"

namespace longreach::test {
namespace {

constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

bool has_run(const InterpretedDevice& device, const std::string& prefix) {
  return std::any_of(device.runs().begin(), device.runs().end(),
                     [&](const auto& run) { return run.first.starts_with(prefix); });
}

// One device a test: its kernels are parsed once.
class ChooseBlocksPtx : public testing::Test {
 protected:
  // The same scores [B, Hl, N, blocks] in float64, which are chosen from on the CPU.
  void expect_same_choice(const at::Tensor& exact, const BlockGeometry& geometry, const SelectionRule& rule) {
    const at::Tensor scores = exact.scalar_type() == at::kDouble ? exact.to(at::kFloat) : exact;
    const auto runs = device_.runs();
    const at::Tensor wanted = choose_blocks(scores.to(at::kDouble), geometry, rule);
    EXPECT_EQ(device_.runs(), runs);
    const at::Tensor found = choose_blocks(scores, geometry, rule);
    EXPECT_NE(device_.runs(), runs);
    EXPECT_TRUE(at::equal(found, wanted)) << found << wanted;
  }

  InterpretedDevice device_;
};

class SelectBlocksPtx : public testing::Test {
 protected:
  void expect_on_device(const SelectCase& c, at::ScalarType dtype) {
    const auto runs = device_.runs();
    expect_matches(c, dtype);
    EXPECT_EQ(device_.runs() != runs, c.rows() > 0);
  }
  void expect_random_cases(unsigned seed) {
    std::mt19937 random(seed);
    for (int i = 0; i < 15; ++i) {
      SCOPED_TRACE(i);
      expect_on_device(random_case(random), kDtypes[i % 3]);
    }
  }

  InterpretedDevice device_;
};

BlockGeometry geometry_of(int64_t tokens, int64_t query_block, int64_t key_block) {
  return {.query_block = query_block, .key_block = key_block, .tokens = tokens};
}

TEST_F(ChooseBlocksPtx, EveryRuleIsTheCpus) {
  // Sixteenths: sums are exact in any order, and there are many ties.
  const at::Tensor scores = (normal({1, 2, 15, 15}, 3) * 6).round().abs() / 16;
  for (const SelectionRule& rule : every_rule()) expect_same_choice(scores, geometry_of(240, 16, 16), rule);
  for (const at::ScalarType dtype : kDtypes)
    expect_same_choice(scores.to(dtype), geometry_of(240, 16, 16), {.top_k = 3});
}

TEST_F(ChooseBlocksPtx, NegativeScoresZerosAndInfinities) {
  at::Tensor scores = (normal({2, 1, 9, 9}, 4) * 2).round();
  scores = scores * at::full({}, -1.0) * scores.sign().abs();  // zeros of both signs
  scores.select(3, 2).fill_(kInfinity);
  scores.select(3, 4).fill_(-kInfinity);
  for (const SelectionRule& rule : std::vector<SelectionRule>{{.top_k = 3, .latest = 0},
                                                              {.top_k = 5},
                                                              {.threshold = -kInfinity, .latest = 0},
                                                              {.threshold = 0.0, .latest = 0},
                                                              {.top_k = 6, .threshold = -1.0, .latest = 0},
                                                              {.mass = 0.5, .latest = 0}})
    expect_same_choice(scores, geometry_of(36, 4, 4), rule);
}

// Thresholds between floats: a score is compared as the double is.
TEST_F(ChooseBlocksPtx, ThresholdsBetweenFloats) {
  const float x = 0.1f;
  const at::Tensor scores = at::full({1, 1, 4, 4}, x);
  scores.select(3, 1).fill_(std::nextafter(x, 1.0f));
  for (const double threshold : {0.1, static_cast<double>(x), static_cast<double>(x) + 1e-12,
                                 static_cast<double>(x) - 1e-12, -0.0, 1e300, -1e300})
    expect_same_choice(scores, geometry_of(16, 4, 4), {.threshold = threshold, .latest = 0});
}

TEST_F(ChooseBlocksPtx, RowsAroundTheWarpAndPackedDocuments) {
  for (const int64_t blocks : {1, 31, 32, 33, 63, 64, 65, 200, 257}) {
    const at::Tensor scores = (normal({1, 1, 3, blocks}, 6) * 5).round();
    BlockGeometry geometry{.query_block = 1, .key_block = 4, .tokens = 4 * blocks, .offset = 4 * blocks - 3};
    for (const int64_t top_k : {int64_t{1}, blocks / 2 + 1, blocks})
      expect_same_choice(scores, geometry, {.top_k = top_k, .latest = 0});
    expect_same_choice(scores, geometry, {.top_k = 9, .first = 3, .latest = 5});
  }
  BlockGeometry packed = geometry_of(0, 8, 8);
  packed.cu_seqlens = bounds({0, 0, 70, 71, 71, 150, 150});
  const at::Tensor scores = normal({1, 3, 20, 10}, 7);
  for (const SelectionRule& rule : every_rule()) expect_same_choice(scores.abs(), packed, rule);
}

TEST_F(ChooseBlocksPtx, NanMattersOnlyInCandidates) {
  at::Tensor scores = at::full({1, 1, 2, 2}, 1.0f);
  scores[0][0][0][1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(lists_of(choose_blocks(scores, geometry_of(4, 2, 2), {})),
            (std::vector<std::vector<int32_t>>{{0}, {0, 1}}));
  scores[0][0][1][1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(choose_blocks(scores, geometry_of(4, 2, 2), {}), DataError);
  EXPECT_THROW(choose_blocks(scores, geometry_of(4, 2, 2), {.top_k = 1}), DataError);
}

TEST_F(SelectBlocksPtx, EveryVisibilityAndVote) {
  for (SelectCase c : {token_rows(), block_rows()}) {
    for (const Visible visible : kVisible)
      for (const Vote vote : kVotes) {
        c.how.visible = visible, c.how.vote = vote, c.geometry.tokens = 100;
        expect_on_device(c, kDtypes[(static_cast<int>(visible) + static_cast<int>(vote)) % 3]);
      }
  }
}

TEST_F(SelectBlocksPtx, Logits) {
  SelectCase c = block_rows();
  c.how.softmax = false;
  for (const Vote vote : kVotes)
    for (const auto& [visible, scale] :
         std::vector<std::pair<Visible, double>>{{Visible::started, -0.3}, {Visible::past, 1.0}}) {
      c.how.vote = vote, c.how.visible = visible, c.how.scale = scale;
      expect_on_device(c, at::kFloat);
      c.lists = 1;  // heads on two key heads
      expect_on_device(c, at::kBFloat16);
      c.lists = 2;
    }
}

TEST_F(SelectBlocksPtx, HeadsListsAndSizes) {
  int i = 0;
  for (const auto& [heads, key_heads, lists] : std::vector<std::array<int64_t, 3>>{{1, 1, 1},
                                                                                   {6, 6, 6},
                                                                                   {6, 6, 2},
                                                                                   {6, 2, 6},
                                                                                   {6, 1, 3},
                                                                                   {6, 3, 1},
                                                                                   {12, 2, 3},
                                                                                   {80, 1, 1},
                                                                                   {32, 2, 2}})
    for (const int64_t size : {3, 100}) {
      SelectCase c = token_rows();
      c.heads = heads, c.key_heads = key_heads, c.lists = lists, c.size = size;
      c.geometry.tokens = 30;
      expect_on_device(c, kDtypes[i++ % 3]);
    }
}

TEST_F(SelectBlocksPtx, Rules) {
  for (SelectCase c : {token_rows(), block_rows()})
    for (const SelectionRule& rule : every_rule()) {
      c.rule = rule;
      c.geometry.tokens = 45;
      expect_on_device(c, at::kFloat);
    }
}

TEST_F(SelectBlocksPtx, LengthsAroundTheBlocks) {
  for (const int64_t tokens : {0, 1, 3, 15, 16, 17, 63, 64, 65, 200, 257})
    for (SelectCase c : {token_rows(), block_rows()}) {
      c.geometry.tokens = tokens;
      expect_on_device(c, at::kBFloat16);
    }
}

// Windows of 32 in strides of 16, blocks of 64, heads in groups of 16: NSA as in its paper; the last queries
// of many.
TEST_F(SelectBlocksPtx, NsaOfItsPaper) {
  SelectCase c{.heads = 32, .key_heads = 2, .lists = 2, .size = 128};
  c.geometry = {.query_block = 1, .key_block = 64, .tokens = 3000, .offset = 2990};
  c.how = {.visible = Visible::complete, .width = 32, .stride = 16, .partial = false};
  c.rule = {.top_k = 16, .first = 1, .latest = 2};
  expect_on_device(c, at::kBFloat16);
}

// The last four tokens of 128k: 8191 windows, 2048 blocks.
TEST(SelectBlocksOfLongRowsPtx, AreTheCpus) {
  SelectCase c{.heads = 16, .key_heads = 1, .lists = 1, .size = 64};
  c.geometry = {.query_block = 1, .key_block = 64, .tokens = 131072, .offset = 131068};
  c.how = {.visible = Visible::complete, .width = 32, .stride = 16, .partial = false};
  c.rule = {.top_k = 16, .first = 1, .latest = 2};
  const auto select = [&] {
    return select_blocks(c.q(at::kBFloat16), c.k(at::kBFloat16), c.lists, c.how, c.geometry, c.rule, true);
  };
  const Selection wanted = select();
  const InterpretedDevice device;
  const Selection found = select();
  EXPECT_TRUE(has_run(device, "selection_select_bf16_64"));
  EXPECT_LE(relative_error(found.scores, wanted.scores), 2e-6);
  EXPECT_TRUE(at::equal(found.indices, wanted.indices));
}

TEST_F(SelectBlocksPtx, PackedDocuments) {
  for (SelectCase c : {token_rows(), block_rows()})
    for (const at::ScalarType dtype : kDtypes) {
      c.geometry.tokens = 150;
      c.geometry.cu_seqlens = bounds({0, 0, 70, 71, 71, 150, 150});
      expect_on_device(c, dtype);
    }
}

TEST_F(SelectBlocksPtx, LargeLogits) {
  for (SelectCase c : {token_rows(), block_rows()}) {
    c.magnitude = 3;
    expect_on_device(c, at::kFloat);
  }
}

TEST_F(SelectBlocksPtx, NanIsAnError) {
  for (const bool softmax : {true, false})
    for (const Vote vote : kVotes) {
      SelectCase c = block_rows();
      c.how.softmax = softmax, c.how.vote = vote;
      const at::Tensor q = c.q(at::kFloat), k = c.k(at::kFloat);
      k[0][3][1][2] = std::numeric_limits<float>::quiet_NaN();
      EXPECT_THROW(select_blocks(q, k, 2, c.how, c.geometry, c.rule), DataError);
    }
}

TEST_F(SelectBlocksPtx, AnyStrides) {
  const SelectCase c = token_rows();
  const at::Tensor q = c.q(at::kBFloat16), k = c.k(at::kBFloat16);
  const at::Tensor dense = select_blocks(q.clone(), k.clone(), 2, c.how, c.geometry, c.rule).indices;
  const auto apart = [](const at::Tensor& x) {  // rows that begin at odd elements
    at::Tensor wide = at::full({x.size(0), x.size(1), x.size(2), x.size(3) + 3}, 7.0, x.options());
    wide.narrow(3, 1, x.size(3)).copy_(x);
    return wide.narrow(3, 1, x.size(3));
  };
  const auto turned = [](const at::Tensor& x) { return x.transpose(1, 2).contiguous().transpose(1, 2); };
  EXPECT_TRUE(at::equal(dense, select_blocks(apart(q), apart(k), 2, c.how, c.geometry, c.rule).indices));
  EXPECT_TRUE(at::equal(dense, select_blocks(turned(q), turned(k), 2, c.how, c.geometry, c.rule).indices));
}

TEST_F(SelectBlocksPtx, RandomShapes) { expect_random_cases(21); }
TEST_F(SelectBlocksPtx, MoreRandomShapes) { expect_random_cases(22); }

std::string message(const std::function<void()>& call) {
  try {
    call();
  } catch (const UserError& error) {
    return error.what();
  }
  return {};
}

TEST_F(SelectBlocksPtx, WhatIsNotBuilt) {
  SelectCase c = block_rows();
  c.size = 192;
  EXPECT_NE(message([&] {
              select_blocks(c.q(at::kBFloat16), c.k(at::kBFloat16), 2, c.how, c.geometry, c.rule);
            }).find("head dimension 192; CUDA kernels in bf16 are built for 64, 128"),
            std::string::npos);
  c.size = 16;
  c.geometry = {.query_block = 1, .key_block = 1, .tokens = 30000, .offset = 29999};
  c.how = {.width = 1, .stride = 1};
  EXPECT_NE(message([&] {
              select_blocks(c.q(at::kBFloat16), c.k(at::kBFloat16), 2, c.how, c.geometry, c.rule);
            }).find("key_block: 30000 blocks a row"),
            std::string::npos);
  EXPECT_TRUE(device_.runs().empty());
}

// pooled, and the gradient of x: the CPU's bits, as sums run in one order.
std::vector<at::Tensor> pool_and_back(const at::Tensor& input, const std::vector<Pool>& pools,
                                      const PoolWindows& windows) {
  const at::Tensor x = input.detach().clone().requires_grad_(true);
  const at::Tensor pooled = pool_blocks(x, pools, windows);
  if (pooled.numel() == 0) return {pooled.detach()};
  const at::Tensor grad = normal(pooled.sizes(), 9, at::kFloat).to(pooled.scalar_type());
  return {pooled.detach(), torch::autograd::grad({pooled}, {x}, {grad})[0]};
}

const std::vector<Pool> kAll{Pool::max, Pool::min, Pool::mean};

void expect_pools(const at::Tensor& x, const std::vector<Pool>& pools, const PoolWindows& windows) {
  const auto wanted = pool_and_back(x, pools, windows);
  const InterpretedDevice device;
  const auto found = pool_and_back(x, pools, windows);
  ASSERT_EQ(found.size(), wanted.size());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(at::equal(found[i], wanted[i])) << i;
  EXPECT_EQ(has_run(device, "selection_pool_gradient"), wanted.size() > 1);
}

TEST(PoolBlocksPtx, EveryPoolAloneAndTogether) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const Pool pool : kAll)
      expect_pools(normal({2, 70, 3, 20}, 1, dtype), {pool}, {.width = 16, .stride = 16});
    for (const int64_t size : {1, 20, 33, 128})
      expect_pools(normal({2, 70, 3, size}, 1, dtype), kAll, {.width = 16, .stride = 16});
    expect_pools(normal({1, 70, 2, 33}, 1, dtype), {Pool::min, Pool::min, Pool::mean},
                 {.width = 64, .stride = 64});
    // Ties everywhere.
    expect_pools((normal({1, 70, 2, 8}, 1) * 2).round().to(dtype), kAll, {.width = 64, .stride = 64});
  }
}

TEST(PoolBlocksPtx, OverlappingAndGappedWindows) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const auto& [width, stride] :
         std::vector<std::pair<int64_t, int64_t>>{{32, 16}, {16, 4}, {7, 3}, {3, 7}, {5, 1}, {80, 16}})
      expect_pools(normal({1, 77, 2, 16}, 2, dtype), kAll,
                   {.width = width, .stride = stride, .partial = false});
}

TEST(PoolBlocksPtx, LengthsAroundTheWindowsAndPackedDocuments) {
  for (const int64_t tokens : {0, 1, 63, 64, 65, 200, 257})
    for (const bool partial : {true, false})
      expect_pools(normal({1, tokens, 2, 12}, 3, at::kBFloat16), kAll,
                   {.width = 64, .stride = 64, .partial = partial});
  for (const bool overlapping : {false, true}) {
    PoolWindows windows{.width = 16, .stride = overlapping ? 8 : 16, .partial = !overlapping};
    windows.cu_seqlens = bounds({0, 0, 33, 38, 38, 100, 100});
    expect_pools(normal({1, 100, 2, 12}, 4, at::kFloat), kAll, windows);
  }
}

TEST(PoolBlocksPtx, NanIsTheLargestAndTheSmallest) {
  const InterpretedDevice device;
  at::Tensor x = normal({1, 8, 1, 4}, 5, at::kFloat);
  x.select(1, 3).fill_(std::numeric_limits<float>::quiet_NaN());
  const at::Tensor pooled = pool_blocks(x, kAll, {.width = 4, .stride = 4});
  EXPECT_TRUE(pooled.select(1, 0).isnan().all().item<bool>());
  EXPECT_FALSE(pooled.select(1, 1).isnan().any().item<bool>());
}

TEST(PoolBlocksPtx, Float16) {
  const at::Tensor x = normal({2, 70, 3, 20}, 6).to(at::kHalf);
  for (const PoolWindows& windows :
       {PoolWindows{.width = 16, .stride = 16}, PoolWindows{.width = 12, .stride = 5, .partial = false}}) {
    const auto exact = pool_and_back(x.to(at::kFloat), kAll, windows);
    const InterpretedDevice device;
    const auto found = pool_and_back(x, kAll, windows);
    for (size_t i = 0; i < found.size(); ++i) EXPECT_LE(relative_error(found[i], exact[i]), 1e-3) << i;
  }
}

TEST(PoolBlocksPtx, AnyStrides) {
  const at::Tensor x = normal({2, 3, 50, 24}, 7, at::kFloat);
  const PoolWindows windows{.width = 16, .stride = 16};
  const at::Tensor wanted = pool_blocks(x.transpose(1, 2).contiguous(), kAll, windows);
  const InterpretedDevice device;
  const at::Tensor there = x.clone();
  EXPECT_TRUE(at::equal(pool_blocks(there.transpose(1, 2), kAll, windows), wanted));
  const at::Tensor wide = at::full({2, 50, 3, 27}, 7.0f);
  wide.narrow(3, 1, 24).copy_(x.transpose(1, 2));
  EXPECT_TRUE(at::equal(pool_blocks(wide.narrow(3, 1, 24), kAll, windows), wanted));
}

TEST(PoolBlocksPtx, AtMostSixteenPools) {
  const InterpretedDevice device;
  const std::vector<Pool> many(17, Pool::mean);
  EXPECT_NE(message([&] {
              pool_blocks(normal({1, 8, 1, 4}, 5, at::kFloat), many, {.width = 4, .stride = 4});
            }).find("pools: 17, CUDA kernels take at most 16"),
            std::string::npos);
}

}  // namespace
}  // namespace longreach::test
