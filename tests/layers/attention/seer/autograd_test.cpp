// What the tape promises about the loss of the gate, whose backward pass is its own.
#include <gtest/gtest.h>

#include "layers/attention/seer/gate.h"
#include "tests/support/random_tensors.h"
#include "tests/support/tape_checks.h"

namespace longreach {
namespace {

using namespace test;

constexpr int64_t kHeads = 2, kDim = 8;

at::Tensor loss(const at::Tensor& q, const at::Tensor& k) {
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

TapeCase loss_case() {
  const auto leaf = [](uint64_t seed) { return normal({1, 5, kHeads, kDim}, seed, at::kFloat, true); };
  return {"seer_gate_loss", {leaf(4), leaf(5)}, [](const auto& x) { return loss(x[0], x[1]); }};
}

TEST(Autograd, GradientsWithAGraphAreTheSameNumbers) { expect_same_gradients_with_a_graph(loss_case()); }

TEST(Autograd, ASecondDerivativeThatIsNotThereThrowsByName) { expect_no_second_derivative(loss_case()); }

}  // namespace
}  // namespace longreach
