// What the tape promises about every fused operator: gradients with create_graph, second derivatives, inputs
// that change between forward and backward, outputs that nothing depends on.
#include "layers/ops/common/autograd.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "layers/ops/block_attention/block_attention.h"
#include "layers/ops/common/recompute.h"
#include "layers/ops/interval_attention/interval_attention.h"
#include "layers/ops/merge/merge.h"
#include "layers/ops/recurrence/recurrence.h"
#include "layers/ops/selection/selection.h"
#include "tests/support/random_tensors.h"
#include "tests/support/tape_checks.h"

namespace longreach {
namespace {

using namespace test;

constexpr int64_t kTokens = 20, kHeads = 2, kDim = 8;

at::Tensor heads(uint64_t seed) { return normal({1, kTokens, kHeads, kDim}, seed, at::kFloat, true); }

at::Tensor every_block() { return at::arange(2, at::kInt).expand({1, 1, 2, 2}).contiguous(); }

BlockLists lists() { return {.indices = every_block(), .query_block = 16, .key_block = 16}; }

std::vector<TapeCase> cases() {
  const std::vector<at::Tensor> qkv{heads(1), heads(2), heads(3)};
  return {{"interval_attention", qkv,
           [](const auto& x) { return sum_of_squares(interval_attention(x[0], x[1], x[2]).o); }},
          {"block_attention", qkv,
           [](const auto& x) { return sum_of_squares(block_attention(x[0], x[1], x[2], lists()).o); }},
          {"recurrence", qkv,
           [](const auto& x) { return sum_of_squares(recurrence(x[0], x[1], x[2], {}, {}, {}, {}).o); }},
          {"merge_attention",
           {heads(1), normal({1, kHeads, kTokens}, 2, at::kFloat, true)},
           [](const auto& x) {
             return sum_of_squares(merge_attention({{x[0], x[1]}, {x[0] * 2, x[1] * 3}}).o);
           }},
          {"pool_blocks",
           {heads(1)},
           [](const auto& x) {
             return sum_of_squares(pool_blocks(x[0], {Pool::mean, Pool::max}, {.width = 16, .stride = 16}));
           }},
          {"recomputed", {heads(1)}, [](const auto& x) {
             return sum_of_squares(
                 recomputed([](const Tensors& in) { return Tensors{in[0] * in[0]}; }, {x[0]}, {})[0]);
           }}};
}

TEST(Autograd, GradientsWithAGraphAreTheSameNumbers) {
  for (const TapeCase& c : cases()) expect_same_gradients_with_a_graph(c);
}

TEST(Autograd, ASecondDerivativeThatIsNotThereThrowsByName) {
  for (const TapeCase& c : cases()) expect_no_second_derivative(c);
}

// Integers decide which keys are seen: gradients for another mask than that of the forward pass would be
// silent.
TEST(Autograd, AMaskThatChangesBeforeBackwardIsAnError) {
  const at::Tensor q = heads(1);
  const at::Tensor lo = at::full({1, 1, kTokens}, 0, at::kInt), hi = at::full({1, 1, kTokens}, 9, at::kInt);
  IntervalMask mask;
  mask.lo = lo, mask.hi = hi;
  for (const at::Tensor& changed : {lo, hi}) {
    const at::Tensor value = interval_attention(q, q, q, mask).o.sum();
    changed.add_(1);
    EXPECT_THROW(value.backward(), c10::Error);
  }
  const BlockLists named = lists();
  const at::Tensor value = block_attention(q, q, q, named).o.sum();
  named.indices.fill_(0);
  EXPECT_THROW(value.backward(), c10::Error);
}

// Bounds of documents are small: they are copied, and writing to them afterwards changes nothing.
TEST(Autograd, BoundsThatChangeBeforeBackwardChangeNothing) {
  const auto gradient = [](bool write) {
    const at::Tensor q = heads(1), bounds = at::tensor({0, 7, static_cast<int32_t>(kTokens)}, at::kInt);
    IntervalMask mask;
    mask.cu_seqlens_q = mask.cu_seqlens_k = bounds;
    BlockLists named{
        .indices = at::arange(1, at::kInt).expand({1, 1, 2, 1}), .query_block = 16, .key_block = 16};
    named.cu_seqlens_q = named.cu_seqlens_k = bounds;
    const at::Tensor value =
        sum_of_squares(interval_attention(q, q, q, mask).o) +
        sum_of_squares(block_attention(q, q, q, named).o) +
        sum_of_squares(recurrence(q, q, q, {}, {}, bounds, {}).o) +
        sum_of_squares(pool_blocks(q, {Pool::max}, {.width = 16, .stride = 16, .cu_seqlens = bounds}));
    if (write) bounds.copy_(at::tensor({0, 12, static_cast<int32_t>(kTokens)}, at::kInt));
    return torch::autograd::grad({value}, {q})[0];
  };
  EXPECT_TRUE(at::equal(gradient(false), gradient(true)));
}

TEST(Autograd, AnUndefinedGradientOfTheOutputIsZero) {
  const at::Tensor x = heads(1);
  const std::vector<std::pair<std::string, at::Tensor>> outputs{
      {"interval_attention", interval_attention(x, x, x).o},
      {"block_attention", block_attention(x, x, x, lists()).o},
      {"recurrence", recurrence(x, x, x).o},
      {"pool_blocks", pool_blocks(x, {Pool::mean}, {.width = 16, .stride = 16})}};
  for (const auto& [name, output] : outputs) expect_zero_for_an_undefined_gradient(name, output);
}

}  // namespace
}  // namespace longreach
