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
#include <torch/csrc/autograd/function.h>

#include "core/error.h"
#include "layers/attention/lightning/lrpe.h"
#include "layers/attention/seer/gate.h"
#include "layers/basic/loss.h"
#include "layers/basic/rope.h"
#include "layers/ops/block_attention/block_attention.h"
#include "layers/ops/common/recompute.h"
#include "layers/ops/interval_attention/interval_attention.h"
#include "layers/ops/merge/merge.h"
#include "layers/ops/recurrence/recurrence.h"
#include "layers/ops/rows/rows.h"
#include "layers/ops/selection/selection.h"
#include "tests/support/errors.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;

constexpr int64_t kTokens = 20, kHeads = 2, kDim = 8;

at::Tensor heads(uint64_t seed, at::ScalarType dtype = at::kFloat) {
  return normal({1, kTokens, kHeads, kDim}, seed, dtype, true);
}

at::Tensor every_block() { return at::arange(2, at::kInt).expand({1, 1, 2, 2}).contiguous(); }

BlockLists lists() { return {.indices = every_block(), .query_block = 16, .key_block = 16}; }

at::Tensor gate_loss(const at::Tensor& q, const at::Tensor& k) {
  const SeerConfig config{.form = "prefill", .block_size = 16, .gate_hidden = kDim};
  const SeerGateForm form =
      seer_gate_form(config, {.num_heads = kHeads, .num_kv_heads = kHeads, .head_dim = kDim});
  const at::Tensor tokens = normal({1, 77, kHeads, kDim}, 3);
  const SeerPlaces places = seer_places(tokens, {});
  const at::Tensor all = seer_all_blocks(form, places);
  const at::Tensor target =
      seer_gate_target(form, seer_block_max_reference(form, tokens, tokens, places), all, places)
          .to(at::kFloat);
  return seer_gate_loss(form, q, k, target, all, places, 0.3);
}

// A scalar of one operator, and the leaves that it depends on.
struct Case {
  std::string name;
  std::vector<at::Tensor> leaves;
  std::function<at::Tensor(const std::vector<at::Tensor>&)> value;
};

at::Tensor squares(const at::Tensor& x) { return x.square().sum(); }

std::vector<Case> attention_cases() {
  const std::vector<at::Tensor> qkv{heads(1), heads(2), heads(3)};
  return {
      {"interval_attention", qkv,
       [](const auto& x) { return squares(interval_attention(x[0], x[1], x[2]).o); }},
      {"block_attention", qkv,
       [](const auto& x) { return squares(block_attention(x[0], x[1], x[2], lists()).o); }},
      {"recurrence", qkv,
       [](const auto& x) { return squares(recurrence(x[0], x[1], x[2], {}, {}, {}, {}).o); }},
      {"merge_attention", {heads(1), normal({1, kHeads, kTokens}, 2, at::kFloat, true)}, [](const auto& x) {
         return squares(merge_attention({{x[0], x[1]}, {x[0] * 2, x[1] * 3}}).o);
       }}};
}

std::vector<Case> cases() {
  std::vector<Case> all = attention_cases();
  const at::Tensor positions = at::arange(kTokens).unsqueeze(0);
  all.push_back({"pool_blocks", {heads(1)}, [](const auto& x) {
                   return squares(pool_blocks(x[0], {Pool::mean, Pool::max}, {.width = 16, .stride = 16}));
                 }});
  all.push_back(
      {"lrpe", {heads(1), heads(2), normal({kHeads, 1, kDim}, 3, at::kFloat, true)}, [=](const auto& x) {
         const auto [q, k] = lightning::lrpe(x[0], x[1], positions, x[2]);
         return squares(q + k);
       }});
  all.push_back({"rms_norm", {heads(1), normal({kDim}, 2, at::kFloat, true)}, [](const auto& x) {
                   return squares(rms_norm(x[0], x[1], 1e-6));
                 }});
  all.push_back({"silu_product", {heads(1), heads(2)}, [](const auto& x) {
                   return squares(silu_product(x[0], x[1]));
                 }});
  all.push_back({"chunked_cross_entropy",
                 {normal({kTokens, kDim}, 1, at::kFloat, true), normal({11, kDim}, 2, at::kFloat, true)},
                 [](const auto& x) {
                   return chunked_cross_entropy(x[0], x[1], at::arange(kTokens).remainder(11)).loss_sum;
                 }});
  all.push_back(
      {"seer_gate_loss",
       {normal({1, 5, kHeads, kDim}, 4, at::kFloat, true), normal({1, 5, kHeads, kDim}, 5, at::kFloat, true)},
       [](const auto& x) { return gate_loss(x[0], x[1]); }});
  all.push_back({"recomputed", {heads(1)}, [](const auto& x) {
                   return squares(
                       recomputed([](const Tensors& in) { return Tensors{in[0] * in[0]}; }, {x[0]}, {})[0]);
                 }});
  return all;
}

TEST(Autograd, GradientsWithAGraphAreTheSameNumbers) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    const auto plain = torch::autograd::grad({c.value(c.leaves)}, c.leaves);
    const auto again = torch::autograd::grad({c.value(c.leaves)}, c.leaves, {}, /*retain_graph=*/true,
                                             /*create_graph=*/true);
    for (size_t i = 0; i < plain.size(); ++i) EXPECT_TRUE(at::equal(plain[i], again[i])) << "leaf " << i;
  }
}

// A gradient penalty whose second derivative is not there must not pass for one that is 0.
TEST(Autograd, ASecondDerivativeThatIsNotThereThrowsByName) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    for (size_t i = 0; i < c.leaves.size(); ++i) {
      const auto gradient = torch::autograd::grad({c.value(c.leaves)}, {c.leaves[i]}, {}, true, true)[0];
      expect_error<UserError>(c.name + ": no second derivative", [&] { squares(gradient).backward(); });
    }
  }
}

TEST(Autograd, ARotationHasSecondDerivatives) {
  RotaryEmbedding rope(RopeConfig{}, kDim, 64);
  const Rotation rotation = rope.at(at::arange(kTokens).unsqueeze(0), at::kDouble);
  // The gradient of sum (R x)^4 / 4 with respect to x is R^T (R x)^3.
  const auto penalty = [&](const std::vector<at::Tensor>& x) {
    const at::Tensor y = rotate(x[0], rotation);
    return torch::autograd::grad({y.pow(4).sum() / 4}, {x[0]}, {}, true, true)[0];
  };
  const at::Tensor x = heads(1, at::kDouble), direction = normal(x.sizes(), 7);
  const at::Tensor second = torch::autograd::grad({(penalty({x}) * direction).sum()}, {x})[0];
  const at::Tensor expected = (penalty({(x + direction * 1e-5).detach().requires_grad_(true)}) -
                               penalty({(x - direction * 1e-5).detach().requires_grad_(true)})) /
                              2e-5;
  EXPECT_LE(relative_error(second, expected), 1e-7);
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
  const at::Tensor positions = at::arange(kTokens).unsqueeze(0).clone(),
                   theta = normal({kHeads, 1, kDim}, 3, at::kFloat);
  const at::Tensor turned = lightning::lrpe(q, q, positions, theta).first.sum();
  positions.add_(1);
  EXPECT_THROW(turned.backward(), c10::Error);
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
        squares(interval_attention(q, q, q, mask).o) + squares(block_attention(q, q, q, named).o) +
        squares(recurrence(q, q, q, {}, {}, bounds, {}).o) +
        squares(pool_blocks(q, {Pool::max}, {.width = 16, .stride = 16, .cu_seqlens = bounds}));
    if (write) bounds.copy_(at::tensor({0, 12, static_cast<int32_t>(kTokens)}, at::kInt));
    return torch::autograd::grad({value}, {q})[0];
  };
  EXPECT_TRUE(at::equal(gradient(false), gradient(true)));
}

// A caller's own node may hand back nothing for what an operator gave; that is a gradient of 0, not a fault.
TEST(Autograd, AnUndefinedGradientOfTheOutputIsZero) {
  const at::Tensor x = heads(1), positions = at::arange(kTokens).unsqueeze(0);
  RotaryEmbedding rope(RopeConfig{}, kDim, 64);
  const std::vector<std::pair<std::string, at::Tensor>> outputs{
      {"interval_attention", interval_attention(x, x, x).o},
      {"block_attention", block_attention(x, x, x, lists()).o},
      {"recurrence", recurrence(x, x, x).o},
      {"pool_blocks", pool_blocks(x, {Pool::mean}, {.width = 16, .stride = 16})},
      {"rotate", rotate(x, rope.at(positions, at::kFloat))},
      {"lrpe", lightning::lrpe(x, x, positions, normal({kHeads, 1, kDim}, 3, at::kFloat)).first},
      {"rms_norm", rms_norm(x, {}, 1e-6)},
      {"silu_product", silu_product(x, x)}};
  for (const auto& [name, output] : outputs) {
    SCOPED_TRACE(name);
    const auto& node = output.grad_fn();
    const Tensors gradients = (*node)(Tensors(node->num_inputs()));
    for (const at::Tensor& gradient : gradients)
      if (gradient.defined()) {
        EXPECT_EQ(gradient.abs().max().item<double>(), 0.0);
      }
  }
}

}  // namespace
}  // namespace longreach
