// Selection on a CUDA device, through the same cases and the same limits as on the CPU. Without a device
// every test is skipped and says why.
#include <torch/csrc/autograd/autograd.h>

#include "tests/layers/ops/selection/cases.h"
#include "tests/support/device_fixture.h"

namespace longreach::test {
namespace {

Selection select_on_device(const at::Tensor& q, const at::Tensor& k, int64_t lists, const BlockScores& how,
                           const BlockGeometry& geometry, const SelectionRule& rule, bool keep_scores) {
  const Selection found = select_blocks(on_device(q), on_device(k), lists, how, geometry, rule, keep_scores);
  return {found.indices.to(at::kCPU), keep_scores ? found.scores.to(at::kCPU) : found.scores};
}

void expect_on_device(const SelectCase& c) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) expect_matches(c, dtype, select_on_device);
}

TEST_F(Device, SelectsByEveryVisibilityAndVote) {
  for (SelectCase c : {token_rows(), block_rows()})
    for (const Visible visible : kVisible)
      for (const Vote vote : kVotes) {
        c.how.visible = visible, c.how.vote = vote;
        expect_on_device(c);
      }
}

TEST_F(Device, SelectsByEveryRule) {
  for (SelectCase c : {token_rows(), block_rows()})
    for (const SelectionRule& rule : every_rule()) {
      c.rule = rule;
      expect_on_device(c);
    }
}

TEST_F(Device, SelectsAtAllLengths) {
  for (const int64_t tokens : {0, 1, 16, 63, 64, 65, 200, 257})
    for (SelectCase c : {token_rows(), block_rows()}) {
      c.geometry.tokens = tokens;
      expect_on_device(c);
    }
}

TEST_F(Device, SelectsInRandomShapes) {
  std::mt19937 random(31);
  for (int i = 0; i < 60; ++i) expect_on_device(random_case(random));
}

TEST_F(Device, ChoosesAsTheCpu) {
  const BlockGeometry geometry{.query_block = 16, .key_block = 16, .tokens = 640};
  const at::Tensor scores = (normal({2, 3, 40, 40}, 3, at::kFloat) * 6).round().abs() / 16;
  for (const SelectionRule& rule : every_rule())
    EXPECT_TRUE(at::equal(choose_blocks(on_device(scores), geometry, rule).to(at::kCPU),
                          choose_blocks(scores, geometry, rule)));
}

TEST_F(Device, PoolsAsTheCpu) {
  const std::vector<Pool> pools{Pool::max, Pool::min, Pool::mean};
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const PoolWindows& windows :
         {PoolWindows{.width = 64, .stride = 64}, PoolWindows{.width = 32, .stride = 16, .partial = false}}) {
      std::vector<at::Tensor> results;
      for (const at::Device device : {at::Device(at::kCPU), at::Device(at::kCUDA)}) {
        const at::Tensor x = normal({2, 300, 4, 64}, 1, dtype).to(device).requires_grad_(true);
        const at::Tensor pooled = pool_blocks(x, pools, windows);
        const at::Tensor grad = normal(pooled.sizes(), 2, dtype).to(device);
        results.push_back(pooled.detach().to(at::kCPU));
        results.push_back(torch::autograd::grad({pooled}, {x}, {grad})[0].to(at::kCPU));
      }
      EXPECT_TRUE(at::equal(results[0], results[2]));
      EXPECT_TRUE(at::equal(results[1], results[3]));
    }
}

}  // namespace
}  // namespace longreach::test
