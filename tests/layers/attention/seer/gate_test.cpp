// The gate's functions against their formulae, at awkward lengths and in packed documents.
#include "layers/attention/seer/gate.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;

constexpr int64_t kHeads = 4, kKvHeads = 2, kDim = 8;

SeerGateForm form_of(bool decode) {
  SeerConfig config{.form = decode ? "decode" : "prefill", .block_size = 16, .gate_hidden = 8};
  return seer_gate_form(config, {.num_heads = kHeads, .num_kv_heads = kKvHeads, .head_dim = kDim});
}

struct Inputs {
  SeerGateForm form;
  SeerPlaces places;
  at::Tensor q, k, v, gate_q, gate_k;
};

Inputs inputs(bool decode, const std::vector<int32_t>& bounds, int64_t batch = 1) {
  Inputs in{.form = form_of(decode)};
  const int64_t tokens = bounds.back();
  in.q = normal({batch, tokens, kHeads, kDim}, 1) * 2;
  in.k = normal({batch, tokens, kKvHeads, kDim}, 2);
  in.v = normal({batch, tokens, kKvHeads, kDim}, 3);
  in.places = seer_places(in.q, bounds.size() > 2 ? at::tensor(bounds, at::kInt) : at::Tensor());
  const int64_t rows = seer_own_blocks(in.form, in.places).size(0);
  PoolWindows windows{16, 16, !decode, in.places.cu_seqlens};
  in.gate_q = normal({batch, rows, in.form.map_heads(), 8}, 4);
  in.gate_k = normal({batch, window_count(windows, tokens), in.form.single() ? kHeads : kKvHeads, 8}, 5);
  return in;
}

const std::vector<std::vector<int32_t>>& shapes() {
  static const std::vector<std::vector<int32_t>> all{
      {0, 77}, {0, 16}, {0, 9}, {0, 64}, {0, 5, 5, 53, 69, 101}};
  return all;
}

// The truth out of block attention's statistics is the truth out of the probability matrix.
TEST(SeerGate, BlockMaximaAreThoseOfTheMatrix) {
  for (const bool decode : {false, true})
    for (const auto& bounds : shapes()) {
      const Inputs in = inputs(decode, bounds);
      const at::Tensor all = seer_all_blocks(in.form, in.places);
      const at::Tensor found = seer_attend(in.form, in.q.to(at::kFloat), in.k.to(at::kFloat),
                                           in.v.to(at::kFloat), all, in.places, true, Implementation::fused)
                                   .block_max;
      const at::Tensor expected = seer_block_max_reference(in.form, in.q, in.k, in.places);
      EXPECT_LE(relative_error(found, expected), 1e-5);
      const at::Tensor target = seer_gate_target(in.form, expected, all, in.places);
      const at::Tensor sums = target.sum(-1), own = seer_own_blocks(in.form, in.places);
      const at::Tensor some = decode ? own > 0 : own >= 0;
      EXPECT_LE((sums - some.to(at::kDouble)).abs().max().item<double>(), 1e-6);
    }
}

TEST(SeerGate, LossAndGradientsAreThoseOfTheFormula) {
  for (const bool decode : {false, true})
    for (const auto& bounds : shapes()) {
      const Inputs in = inputs(decode, bounds);
      const at::Tensor all = seer_all_blocks(in.form, in.places);
      const at::Tensor target =
          seer_gate_target(in.form, seer_block_max_reference(in.form, in.q, in.k, in.places), all, in.places);
      at::Tensor q = in.gate_q.clone().requires_grad_(true), k = in.gate_k.clone().requires_grad_(true);
      const at::Tensor loss = seer_gate_loss(in.form, q, k, target, all, in.places, 0.3);
      loss.backward();
      at::Tensor q2 = in.gate_q.clone().requires_grad_(true), k2 = in.gate_k.clone().requires_grad_(true);
      const at::Tensor expected = seer_gate_loss_reference(
          in.form, seer_gate_logits(in.form, q2, k2, in.places), target, in.places, 0.3);
      expected.backward();
      EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-12);
      if (bounds.back() < 20) continue;  // nothing to learn in a single block
      EXPECT_LE(relative_error(q.grad(), q2.grad()), 1e-12);
      EXPECT_LE(relative_error(k.grad(), k2.grad()), 1e-12);
      const auto f = [&](const std::vector<at::Tensor>& x) {
        return seer_gate_loss(in.form, x[0], x[1], target, all, in.places, 0.3);
      };
      EXPECT_LE(gradient_error(f, {in.gate_q, in.gate_k}), 1e-6);
    }
}

// The authors' mean over a padded map is the sum over the count, whatever the batches are cut into.
TEST(SeerGate, LossesOfDocumentsSumToThatOfTheirPack) {
  for (const bool decode : {false, true}) {
    const std::vector<int32_t> bounds{0, 5, 53, 69, 146};
    const Inputs in = inputs(decode, bounds);
    const auto loss = [](const Inputs& x) {
      const at::Tensor all = seer_all_blocks(x.form, x.places);
      const at::Tensor target =
          seer_gate_target(x.form, seer_block_max_reference(x.form, x.q, x.k, x.places), all, x.places);
      return seer_gate_loss(x.form, x.gate_q, x.gate_k, target, all, x.places, 0.3).item<double>();
    };
    SeerLossCount whole, apart;
    whole.add(in.form, in.places, 1);
    double sum = 0;
    int64_t row = 0, window = 0;
    for (size_t d = 0; d + 1 < bounds.size(); ++d) {
      const int64_t first = bounds[d], tokens = bounds[d + 1] - first,
                    rows = decode ? tokens : (tokens + 15) / 16, windows = decode ? tokens / 16 : rows;
      Inputs one = in;
      for (at::Tensor* x : {&one.q, &one.k, &one.v}) *x = x->narrow(1, first, tokens);
      one.places = seer_places(tokens, {});
      one.gate_q = in.gate_q.narrow(1, row, rows), one.gate_k = in.gate_k.narrow(1, window, windows);
      row += rows, window += windows;
      sum += loss(one);
      apart.add(one.form, one.places, 1);
    }
    EXPECT_NEAR(sum, loss(in), 1e-12);
    EXPECT_GT(sum, 0);
    EXPECT_EQ(whole.divisor(), 4 * 5);  // documents, blocks of the last one
    EXPECT_EQ(apart.divisor(), whole.divisor());
  }
}

// By chunks of rows: what one pass over every block says.
TEST(SeerGate, DistillingByChunksIsTheLossOverEveryBlock) {
  for (const bool decode : {false, true}) {
    std::vector<std::vector<int32_t>> all_shapes{{0, 1}, {0, 40}, {0, 5, 53, 54, 69}};
    if (decode)
      all_shapes.insert(all_shapes.end(), {{0, 600}, {0, 700, 703, 1000}});
    else
      all_shapes.insert(all_shapes.end(), {{0, 16 * 258 + 5}});
    for (const auto& bounds : all_shapes)
      for (const int64_t batch : {1, 2}) {
        if (batch > 1 && (bounds.size() > 2 || bounds.back() > 1000)) continue;
        SCOPED_TRACE(text(decode ? "decode, " : "prefill, ", bounds.back(), " tokens, batch ", batch));
        Inputs in = inputs(decode, bounds, batch);
        for (at::Tensor* x : {&in.q, &in.k, &in.v, &in.gate_q, &in.gate_k}) *x = x->to(at::kFloat);
        const at::Tensor all = seer_all_blocks(in.form, in.places);
        const at::Tensor block_max =
            seer_attend(in.form, in.q, in.k, in.v, all, in.places, true, Implementation::fused).block_max;
        const at::Tensor target = seer_gate_target(in.form, block_max, all, in.places);
        const auto leaf = [](const at::Tensor& x) { return x.clone().requires_grad_(true); };
        const at::Tensor gate_q = leaf(in.gate_q), gate_k = leaf(in.gate_k), q = leaf(in.gate_q),
                         k = leaf(in.gate_k);
        const at::Tensor expected = seer_gate_loss(in.form, gate_q, gate_k, target, all, in.places, 0.3);
        expected.backward();
        const at::Tensor found = seer_distillation_loss(in.form, leaf(in.q), leaf(in.k), in.v, q, k,
                                                        in.places, 0.3, Implementation::fused);
        found.backward();
        EXPECT_NEAR(found.item<double>(), expected.item<double>(), 1e-5 * expected.item<double>());
        if (bounds.back() < 20) continue;  // nothing to learn in a single block
        EXPECT_LE(relative_error(q.grad(), gate_q.grad()), 1e-5);
        EXPECT_LE(relative_error(k.grad(), gate_k.grad()), 1e-5);
      }
  }
}

// The loss over the chosen blocks is the loss over all of them when all are chosen.
TEST(SeerGate, LossOverListsLooksAtListedBlocksAlone) {
  const Inputs in = inputs(true, {0, 90});
  const at::Tensor lists =
      seer_choose(in.form, {.top_k = 2}, in.gate_q, in.gate_k, in.places, Implementation::reference);
  EXPECT_EQ(lists.size(3), 3);
  const at::Tensor all_max = seer_block_max_reference(in.form, in.q, in.k, in.places);
  const at::Tensor listed_max = all_max.gather(3, lists.clamp_min(0).to(at::kLong));
  const at::Tensor target = seer_gate_target(in.form, listed_max, lists, in.places);
  const double loss =
      seer_gate_loss(in.form, in.gate_q, in.gate_k, target, lists, in.places, 0).item<double>();
  const at::Tensor chosen = seer_block_map(lists, 6);
  const at::Tensor logits =
      seer_gate_logits(in.form, in.gate_q, in.gate_k, in.places).masked_fill(chosen.logical_not(), -1e20);
  const at::Tensor all = seer_all_blocks(in.form, in.places);
  const at::Tensor kept = seer_gate_target(in.form, all_max * chosen.to(at::kDouble), all, in.places);
  const double expected = seer_gate_loss_reference(in.form, logits, kept, in.places, 0).item<double>();
  EXPECT_NEAR(loss, expected, 1e-10);
  EXPECT_GT(loss, 0);
}

// Rows by hand: 5 blocks of 16, one head of interest.
TEST(SeerGate, ChoosesWhatTheRuleSays) {
  const SeerGateForm form = form_of(false);
  const SeerPlaces places{.tokens = 80, .length = 80};
  at::Tensor scores = at::zeros({1, kHeads, 5, 5});
  scores.copy_(at::tensor({.1, .9, .3, .3, .2}, at::kFloat).expand({1, kHeads, 5, 5}));
  const auto row = [&](const SeerRule& rule, int64_t r) {
    const at::Tensor map =
        seer_block_map(seer_choose_from(form, rule, scores, places), 5)[0][1][r].to(at::kLong);
    std::string found;
    for (int64_t i = 0; i < 5; ++i) found += map[i].item<int64_t>() ? '1' : '0';
    return found;
  };
  EXPECT_EQ(row({.top_k = 2}, 4), "01001");                           // the diagonal is forced
  EXPECT_EQ(row({.top_k = 2, .force_diagonal = false}, 4), "01100");  // ties: the lowest block
  EXPECT_EQ(row({.top_k = 2}, 0), "10000");
  EXPECT_EQ(row({.threshold = 0.25, .force_diagonal = false}, 4), "01110");
  EXPECT_EQ(row({.threshold = 0.95, .force_diagonal = false}, 4), "00000");
  EXPECT_EQ(row({.threshold = 0.95}, 4), "00001");
  EXPECT_EQ(row({.top_k = 2, .first_blocks = 1}, 4), "10001");
  EXPECT_EQ(row({.density = 0.5, .force_diagonal = false}, 4), "01000");  // floor((1 - sqrt(0.5)) 5) = 1
  EXPECT_EQ(row({.top_k = 1, .last_block_dense = true}, 4), "11111");
  EXPECT_EQ(row({.top_k = 1, .last_block_dense = true}, 3), "11110");
  EXPECT_EQ(row({.top_k = 1, .last_block_dense = true}, 2), "00100");
}

}  // namespace
}  // namespace longreach
