// Calls without a single token: a row of length 0, packed rows of no documents (cu_seqlens = [0]) and of one that is empty
// ([0, 0]). Every operator and every functional form gives empty tensors, forward and backward. The modules are among the checks
// of every mechanism (tests/support/mechanism_checks.cpp).
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <functional>

#include "layers/attention/biformer/biformer.h"
#include "layers/attention/dense/dense.h"
#include "layers/attention/lightning/lightning.h"
#include "layers/attention/nsa/nsa.h"
#include "layers/attention/s2/s2.h"
#include "layers/attention/seer/gate.h"
#include "layers/attention/sliding/sliding.h"
#include "layers/ops/block_attention/block_attention.h"
#include "layers/ops/interval_attention/interval_attention.h"
#include "layers/ops/merge/merge.h"
#include "layers/ops/recurrence/recurrence.h"
#include "layers/ops/selection/selection.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;
using Results = std::vector<at::Tensor>;

constexpr int64_t kHeads = 4, kKeyHeads = 2, kSize = 16;

// q, k, v without tokens, and the bounds of their documents: undefined, [0] or [0, 0].
struct Nothing {
  at::Tensor q, k, v, cu_seqlens;
  int64_t sequences() const { return cu_seqlens.defined() ? cu_seqlens.numel() - 1 : 1; }
  at::TensorOptions options() const { return q.options().requires_grad(false); }
};

// What comes out is empty or zero, and so is the gradient of q, where q has one.
void expect_nothing(at::ScalarType dtype, const std::function<Results(const Nothing&)>& call) {
  for (const at::Tensor& bounds : {at::Tensor(), at::tensor({0}, at::kInt), at::tensor({0, 0}, at::kInt)}) {
    SCOPED_TRACE(bounds.defined() ? bounds.numel() : 0);
    const auto leaf = [&](int64_t heads) {
      return at::zeros({1, 0, heads, kSize}, at::TensorOptions(dtype)).requires_grad_(true);
    };
    const Nothing in{leaf(kHeads), leaf(kKeyHeads), leaf(kKeyHeads), bounds};
    at::Tensor sum = at::zeros({}, in.options());
    bool first = true;
    for (const at::Tensor& result : call(in)) {
      ASSERT_TRUE(result.defined());
      EXPECT_TRUE(result.numel() == 0 || result.eq(0).all().item<bool>()) << result.sizes();
      EXPECT_EQ(result.requires_grad(), first) << "the first of the results, and it alone, is on the tape";
      if (first) sum = sum + result.sum();
      first = false;
    }
    sum.backward();
    EXPECT_TRUE(in.q.grad().defined() && in.q.grad().sizes() == in.q.sizes());
  }
}

TEST(NoTokens, SoftmaxOperators) {
  for (const bool sinks : {false, true}) {
    const auto mask = [&](const Nothing& in) {
      return IntervalMask{.window = sinks ? 4 : 0,
                          .sinks = sinks ? 2 : 0,
                          .cu_seqlens_q = in.cu_seqlens,
                          .cu_seqlens_k = in.cu_seqlens};
    };
    expect_nothing(at::kFloat, [&](const Nothing& in) -> Results {
      return {interval_attention(in.q, in.k, in.v, mask(in)).o};
    });
    expect_nothing(at::kDouble, [&](const Nothing& in) -> Results {
      return {interval_attention_reference(in.q, in.k, in.v, mask(in)).o};
    });
  }
  for (const int64_t slots : {0, 3})
    for (const bool fused : {false, true})
      expect_nothing(fused ? at::kFloat : at::kDouble, [&](const Nothing& in) -> Results {
        const BlockLists lists{.indices = at::empty({1, kKeyHeads, 0, slots}, at::kInt),
                               .query_block = 16,
                               .key_block = 16,
                               .cu_seqlens_q = in.cu_seqlens,
                               .cu_seqlens_k = in.cu_seqlens};
        const BlockAttentionOutput out = (fused ? block_attention : block_attention_reference)(
            in.q, in.k, in.v, lists, {.statistics = BlockStatistics::per_list});
        return {out.o, out.block_max, out.block_sum};
      });
  for (const bool fused : {false, true})
    expect_nothing(fused ? at::kFloat : at::kDouble, [&](const Nothing& in) -> Results {
      const IntervalAttentionOutput part =
          fused ? interval_attention(in.q, in.k, in.v) : interval_attention_reference(in.q, in.k, in.v);
      return {(fused ? merge_attention : merge_attention_reference)({part, part}).o};
    });
}

TEST(NoTokens, Recurrences) {
  const at::Tensor by_head = at::full({kHeads}, -0.1, at::kFloat);
  for (const bool state : {false, true})
    for (const bool by_token : {false, true})
      for (const bool fused : {false, true})
        expect_nothing(fused ? at::kFloat : at::kDouble, [&](const Nothing& in) -> Results {
          const at::Tensor start = at::zeros({in.sequences(), kHeads, kSize, kSize}, in.options());
          const RecurrenceOutput out = (fused ? recurrence : recurrence_reference)(
              in.q, in.k, in.v, by_token ? at::zeros({1, 0, kHeads}, at::kFloat) : by_head,
              state ? start : at::Tensor(), in.cu_seqlens, {});
          EXPECT_EQ(out.final_state.sizes(), start.sizes());
          return {out.o, out.final_state.detach()};
        });
  for (const bool state : {false, true})
    expect_nothing(at::kDouble, [&](const Nothing& in) -> Results {
      const at::Tensor start = at::zeros({in.sequences(), kHeads, kSize, kSize}, in.options()),
                       k = in.k.repeat_interleave(2, 2), v = in.v.repeat_interleave(2, 2);
      const LightningAttentionOutput out = lightning_attention_reference(
          in.q, k, v, by_head, 1.0, state ? start : at::Tensor(), in.cu_seqlens);
      EXPECT_EQ(out.state.sizes(), start.sizes());
      return {out.o, out.state.detach()};
    });
}

TEST(NoTokens, Formulae) {
  expect_nothing(at::kDouble, [](const Nothing& in) -> Results {
    return {dense_attention_reference(in.q, in.k, in.v, in.cu_seqlens)};
  });
  expect_nothing(at::kDouble, [](const Nothing& in) -> Results {
    return {sliding_attention_reference(in.q, in.k, in.v, 4, 1, in.cu_seqlens)};
  });
  const S2Pattern pattern{.block_size = 16, .local_blocks = 1, .vert_stride = 2, .heads = kKeyHeads};
  expect_nothing(at::kDouble, [&](const Nothing& in) -> Results {
    return {s2_attention_reference(in.q, in.k, in.v, pattern, in.cu_seqlens)};
  });
  expect_nothing(at::kFloat, [&](const Nothing& in) -> Results {
    const BlockLists lists{.indices = s2_lists(pattern, 0, 0, 16, in.cu_seqlens),
                           .query_block = 16,
                           .key_block = 16,
                           .cu_seqlens_q = in.cu_seqlens,
                           .cu_seqlens_k = in.cu_seqlens};
    return {block_attention(in.q, in.k, in.v, lists).o};
  });
}

TEST(NoTokens, Biformer) {
  for (const auto implementation : {Implementation::fused, Implementation::reference})
    for (const auto query : {BiformerRouting::Query::mean, BiformerRouting::Query::first})
      for (const bool causal : {false, true})
        expect_nothing(implementation == Implementation::fused ? at::kFloat : at::kDouble,
                       [&](const Nothing& in) -> Results {
                         const BiformerRouting routing{
                             .region = 16, .topk = 2, .causal = causal, .query = query};
                         const BiformerOutput out =
                             biformer_attention(in.q, in.k, in.v, routing, in.cu_seqlens, {}, implementation);
                         return {out.o, out.indices};
                       });
}

TEST(NoTokens, SelectionAndPools) {
  for (const bool fused : {false, true})
    for (const int64_t top_k : {0, 2})
      expect_nothing(fused ? at::kFloat : at::kDouble, [&](const Nothing& in) -> Results {
        const PoolWindows windows{16, 16, true, in.cu_seqlens};
        const auto pool = fused ? pool_blocks : pool_blocks_reference;
        const at::Tensor q = pool(in.q, {Pool::mean, Pool::max, Pool::min}, windows),
                         k = pool(in.k, {Pool::mean, Pool::max, Pool::min}, windows);
        const BlockGeometry geometry{.query_block = 16, .key_block = 16, .cu_seqlens = in.cu_seqlens};
        const Selection chosen = (fused ? select_blocks : select_blocks_reference)(
            q, k, kKeyHeads, {.width = 16, .stride = 16}, geometry, {.top_k = top_k}, true);
        EXPECT_TRUE(choose_blocks(chosen.scores, geometry, {.top_k = top_k}).sizes() ==
                    chosen.indices.sizes());
        return {q, chosen.indices, chosen.scores};
      });
}

at::Tensor compressed(const at::Tensor& x, const std::string& kind, const NsaOptions& options,
                      const at::Tensor& cu_seqlens) {
  const int64_t width = options.compress_block * kSize;
  const at::TensorOptions like = x.options().requires_grad(false);
  NsaCompression phi{.kind = kind};
  if (kind == "weighted") phi.weight = at::ones({kKeyHeads, options.compress_block}, like);
  if (kind == "linear") phi.weight = at::ones({kKeyHeads, width, kSize}, like);
  if (kind == "mlp") {
    phi.weight = at::ones({8, width}, like);
    phi.down_weight = at::ones({kSize, 8}, like);
  }
  return nsa_compress(x, phi, options, cu_seqlens);
}

TEST(NoTokens, Nsa) {
  for (const auto form : {NsaForm::paper, NsaForm::lucidrains})
    for (const char* kind : {"mean", "weighted", "linear", "mlp"})
      for (const int64_t block : {16, 8})  // by block_attention and beside it
        for (const bool fused : {false, true})
          expect_nothing(fused ? at::kFloat : at::kDouble, [&](const Nothing& in) -> Results {
            const NsaOptions options{.form = form,
                                     .compress_block = 8,
                                     .compress_stride = 4,
                                     .block_size = block,
                                     .num_blocks = 3,
                                     .window = 4};
            NsaInput input{.q = in.q,
                           .k = in.k,
                           .v = in.v,
                           .gate = at::ones({1, 0, kHeads, 3}, in.options()),
                           .k_cmp = compressed(in.k, kind, options, in.cu_seqlens),
                           .v_cmp = compressed(in.v, kind, options, in.cu_seqlens),
                           .cu_seqlens = in.cu_seqlens};
            if (form == NsaForm::lucidrains)
              input.memory_k = input.memory_v = at::ones({kKeyHeads, 2, kSize}, in.options());
            const NsaOutput out =
                (fused ? static_cast<NsaOutput (*)(const NsaInput&, const NsaOptions&, bool)>(nsa_attention)
                       : nsa_attention_reference)(input, options, false);
            return {out.o, out.block_indices};
          });
  expect_nothing(at::kFloat, [](const Nothing& in) -> Results {
    return {nsa_attention(in.q, in.k, in.v, {}, {.block_size = 16, .num_blocks = 3}, in.cu_seqlens).o};
  });
}

TEST(NoTokens, SeerGates) {
  const LayerSite site{.num_heads = kHeads, .num_kv_heads = kKeyHeads, .head_dim = kSize};
  for (const char* kind : {"decode", "prefill"})
    for (const auto implementation : {Implementation::fused, Implementation::reference}) {
      SeerConfig config;
      config.form = kind;
      config.block_size = 16;
      config.gate_hidden = kSize;
      const SeerGateForm form = seer_gate_form(config, site);
      expect_nothing(
          implementation == Implementation::fused ? at::kFloat : at::kDouble,
          [&](const Nothing& in) -> Results {
            SeerGateWeights weights{.k = at::ones(form.k_shape(), in.options())};
            if (form.linear_q) weights.q = at::ones(form.q_shape(), in.options());
            if (form.norm) weights.q_norm = weights.k_norm = at::ones({kSize}, in.options());
            RotaryEmbedding rotary({}, kSize, 64);
            const SeerPlaces places = seer_places(in.q, in.cu_seqlens);
            const at::Tensor positions = at::arange(0, at::kLong).unsqueeze(0);
            const at::Tensor q =
                seer_gate_queries(form, weights, in.q, &rotary, positions, places, implementation);
            const at::Tensor k = seer_gate_keys(form, weights, in.k, &rotary, places, implementation);
            const at::Tensor all = seer_all_blocks(form, places),
                             chosen = seer_choose(form, {.top_k = 2}, q, k, places, implementation);
            const at::Tensor logits = seer_gate_logits(form, q, k, places);
            const SeerAttended attended =
                seer_attend(form, in.q, in.k, in.v, all, places, true, implementation);
            const at::Tensor target = seer_gate_target(form, attended.block_max, all, places);
            return {attended.o.sum() + seer_gate_loss(form, q, k, target, all, places, 0.25) + logits.sum() +
                        seer_gate_loss_reference(form, logits, target, places, 0.25),
                    chosen, seer_block_max_reference(form, in.q.detach(), in.k.detach(), places),
                    seer_choose_from(form, {.top_k = 2, .last_block_dense = true}, logits.detach(), places),
                    seer_block_map(chosen, 0)};
          });
    }
}

}  // namespace
}  // namespace longreach
