// The gate, its loss and its choice without a token.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>

#include "layers/attention/seer/gate.h"
#include "tests/support/no_tokens.h"

namespace longreach::test {
namespace {

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
}  // namespace longreach::test
