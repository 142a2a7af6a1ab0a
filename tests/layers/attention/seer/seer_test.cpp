// SeerAttention: the promises of a mechanism, and those of its gate.
#include "layers/attention/seer/seer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "layers/attention/attention.h"
#include "layers/attention/common/taught_gates.h"
#include "layers/attention/mechanisms.h"
#include "layers/attention/seer/gate.h"
#include "tests/support/mechanism_checks.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;

SeerConfig budget(int64_t blocks) {
  return {.block_size = 16, .gate_hidden = 8, .token_budget = 16 * blocks};
}

std::vector<SeerConfig> decode_configs() {
  std::vector<SeerConfig> all{SeerConfig{}, budget(1)};
  SeerConfig config = budget(1);
  config.q_pooling = "Qavg";
  config.k_pooling = "Kmaxmin";
  config.gate_qk_norm = false;
  config.selection = "top_k";
  config.top_k = 2;
  config.first_blocks = 1;
  all.push_back(config);
  config = budget(1);
  config.q_pooling = "Qorig";
  config.block_position = "end";
  config.selection = "threshold";
  config.threshold = 0.4;
  all.push_back(config);
  config = budget(1);
  config.q_pooling = "Qavgproj";
  config.gate_hidden = 6;
  config.gate_rope = config.rope = false;
  all.push_back(config);
  return all;
}

Batch rows(int64_t batch, int64_t tokens) {
  return {.positions = at::arange(tokens, at::kLong).unsqueeze(0).expand({batch, tokens})};
}

TEST(Seer, IsCausal) {
  for (const auto& config : decode_configs()) expect_causal(config, small_site());
}

TEST(Seer, DecodesAsForward) {
  const auto configs = decode_configs();
  for (size_t i = 1; i < 4; ++i) expect_decode_equals_forward(configs[i], norm_site());
}

TEST(Seer, PackedDocumentsAreSeparate) {
  for (const auto& config : decode_configs()) expect_packed_equals_separate(config, norm_site());
  SeerConfig prefill = budget(1);
  prefill.form = "prefill";
  for (const char* selection : {"token_budget", "threshold", "density"}) {
    prefill.selection = selection;
    prefill.threshold = 0.45;
    expect_packed_equals_separate(prefill, norm_site());
    prefill.last_block_dense = false;
  }
}

TEST(Seer, FusedIsTheFormula) {
  for (const auto& config : decode_configs()) expect_fused_equals_reference(config, norm_site());
  SeerConfig prefill = budget(1);
  prefill.form = "prefill";
  prefill.last_block_dense = false;
  expect_fused_equals_reference(prefill, norm_site());
}

TEST(Seer, BFloat16IsClose) {
  expect_bfloat16_close(SeerConfig{.block_size = 16, .gate_hidden = 8}, norm_site());
}

TEST(Seer, EnoughBudgetIsDenseAttention) {
  const at::NoGradGuard no_grad;
  const LayerSite site = small_site();
  const auto dense = make_attention(AttentionConfig(DenseConfig{}), site);
  const at::Tensor x = normal({2, 45, site.hidden_size}, 2, at::kFloat);
  const at::Tensor y = dense->forward(x, rows(2, 45)).y;
  for (const char* mode : {"sparse", "distill", "dense"}) {
    SeerConfig config = budget(3);
    config.mode = mode;
    const auto seer = make_attention(AttentionConfig(config), site);
    EXPECT_LE(relative_error(seer->forward(x, rows(2, 45)).y, y), 1e-6) << mode;
  }
  SeerConfig less = budget(1);
  EXPECT_GT(relative_error(make_attention(AttentionConfig(less), site)->forward(x, rows(2, 45)).y, y), 1e-3);
}

TEST(Seer, DistillationMovesTheGateAlone) {
  for (const char* form : {"decode", "prefill"}) {
    SeerConfig config = budget(1);
    config.form = form;
    config.mode = "distill";
    const auto seer = make_attention(AttentionConfig(config), small_site());
    const at::Tensor x = normal({1, 70, small_site().hidden_size}, 2, at::kFloat);
    const AttentionOutput out = seer->forward(x, rows(1, 70));
    ASSERT_EQ(out.losses.size(), 1u);
    EXPECT_EQ(out.losses[0].first, "gate");
    EXPECT_EQ(seer->loss_counts({rows(1, 70), rows(3, 90)}).at("gate"), 4 * 6);
    out.losses[0].second.backward();
    int64_t moved = 0;
    for (const auto& item : seer->named_parameters()) {
      const bool gate = item.key().find("attn_gate") != std::string::npos;
      EXPECT_EQ(item.value().grad().defined(), gate) << item.key();
      moved += gate;
    }
    EXPECT_EQ(moved, std::string(form) == "decode" ? 4 : 1);
  }
}

// While a sparse model trains, the gate learns from the blocks it chose; in evaluation there is no loss.
TEST(Seer, SparseTrainingTeachesTheGateToo) {
  const auto seer = make_attention(AttentionConfig(budget(2)), small_site());
  const at::Tensor x = normal({1, 90, small_site().hidden_size}, 2, at::kFloat);
  const AttentionOutput out = seer->forward(x, rows(1, 90));
  ASSERT_EQ(out.losses.size(), 1u);
  (out.losses[0].second + out.y.sum()).backward();
  for (const auto& item : seer->named_parameters())
    EXPECT_GT(item.value().grad().abs().sum().item<double>(), 0) << item.key();
  seer->eval();
  EXPECT_TRUE(seer->forward(x, rows(1, 90)).losses.empty());
}

TEST(Seer, TheCacheHoldsKeysOfCompleteBlocks) {
  // 80 tokens of 2 heads x 8 in a cache of 256, keys and values; 16 block keys; no token waits.
  EXPECT_EQ(decode_bytes(budget(2), small_site(), 80), (2 * 256 * 16 + 16 * 16) * 4);
  EXPECT_EQ(overflow_message(budget(2), small_site()),
            "decoding: 3 tokens seen and 3 more do not fit max_tokens = 4");
}

std::string config_error(const SeerConfig& config) {
  try {
    make_attention(AttentionConfig(config), small_site());
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(Seer, BadConfigsAreNamed) {
  SeerConfig config = budget(1);
  config.token_budget = 8;
  EXPECT_EQ(config_error(config), "token_budget = 8: expected a positive multiple of block_size = 16");
  config = budget(1);
  config.block_size = 48;
  EXPECT_EQ(config_error(config), "block_size = 48: expected 16, 32, 64 or 128");
  config = budget(1);
  config.selection = "density";
  EXPECT_NE(config_error(config).find("cannot know a sequence's length"), std::string::npos);
  config = budget(1);
  config.first_blocks = 1;
  EXPECT_EQ(config_error(config), "first_blocks = 1: expected fewer than the 1 blocks chosen");
  config = budget(1);
  config.q_pooling = "Qmax";
  EXPECT_NE(config_error(config).find("belongs to form = \"prefill\""), std::string::npos);
  config.form = "prefill";
  config.gate_hidden = 6;
  EXPECT_EQ(config_error(config), "");
  config.layout = "single";
  EXPECT_NE(config_error(config).find("needs one query pool and gate_hidden = head_dim (8)"),
            std::string::npos);
  config = budget(1);
  config.gate_hidden = 6;
  config.q_pooling = "Qorig";
  EXPECT_NE(config_error(config).find("takes queries as they are"), std::string::npos);
}

}  // namespace
}  // namespace longreach
