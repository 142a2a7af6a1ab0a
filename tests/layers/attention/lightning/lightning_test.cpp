// Lightning attention: decays, both layer forms, the promises of a mechanism, and the authors' numbers.
#include "layers/attention/lightning/lightning.h"
#include "core/error.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>

#include "checkpoints/safetensors.h"
#include "layers/attention/lightning/lrpe.h"
#include "layers/basic/norm.h"
#include "layers/ops/recurrence/recurrence.h"
#include "tests/support/gradients.h"
#include "tests/support/mechanism_checks.h"
#include "tests/support/random_tensors.h"
#include "tests/support/vectors.h"

namespace longreach {
namespace {

using namespace test;

const std::vector<LightningConfig>& configs() {
  static const std::vector<LightningConfig> all{
      {},
      {.lrpe = "off"},
      {.decay = "paper", .chunk = 16},
      {.form = "minimax"},
      {.form = "minimax", .decay = "none", .lrpe = "on", .chunk = 32},
      {.form = "hypenet"},
      {.form = "hypenet", .decay = "none", .scale = "1/d", .rope = false}};
  return all;
}

std::vector<double> decays(const std::string& kind, int64_t heads, int64_t layer, int64_t layers) {
  const at::Tensor values = lightning_log_decay(kind, heads, layer, layers);
  return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + heads};
}

void expect_values(const std::vector<double>& found, const std::vector<double>& expected,
                   double tolerance = 1e-9) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i)
    EXPECT_NEAR(found[i], expected[i], 1e-12 + tolerance * std::abs(expected[i])) << i;
}

TEST(LightningDecay, AlibiSlopesOfPowersOfTwo) {
  expect_values(decays("alibi", 4, 0, 3),
                {-0.25 * 1.00001, -0.0625 * 1.00001, -0.015625 * 1.00001, -0.00390625 * 1.00001});
  expect_values(decays("alibi", 2, 1, 3), {-0.0625 * 0.50001, -0.00390625 * 0.50001});
}

TEST(LightningDecay, AlibiInterleavesOtherHeadCounts) {
  // 6 heads: the 4 of a power of two, then every second of the 8.
  expect_values(decays("alibi", 6, 0, 2), {-0.25 * 1.00001, -0.0625 * 1.00001, -0.015625 * 1.00001,
                                           -0.00390625 * 1.00001, -0.5 * 1.00001, -0.125 * 1.00001});
}

TEST(LightningDecay, HypenetHasTheSlopesInEveryLayer) {
  for (const int64_t layer : {0, 1, 4})
    expect_values(decays("hypenet", 6, layer, 5), {-0.25, -0.0625, -0.015625, -0.00390625, -0.5, -0.125});
}

TEST(Lightning, ScalesAsItSays) {
  const auto scale = [](const LightningConfig& config) { return config.scale_of(16); };
  EXPECT_EQ(scale({}), 1.0);
  EXPECT_EQ(scale({.form = "minimax"}), 1.0);
  EXPECT_EQ(scale({.decay = "paper"}), 0.25);
  EXPECT_EQ(scale({.form = "hypenet"}), 0.25);
  EXPECT_EQ(scale({.form = "hypenet", .scale = "none"}), 1.0);
  EXPECT_EQ(scale({.form = "minimax", .scale = "1/d"}), 1.0 / 16);
}

TEST(LightningDecay, OneLayerDividesByNothing) {
  for (const char* kind : {"alibi", "minimax", "paper", "hypenet", "none"})
    for (const double value : decays(kind, 5, 0, 1))
      EXPECT_TRUE(std::isfinite(value) && value <= 0.0) << kind;
  expect_values(decays("alibi", 1, 0, 1), {-0.00390625 * 1.00001});
}

TEST(LightningDecay, PaperAndMinimax) {
  expect_values(decays("paper", 4, 1, 4), {0.0, -1.5, -3.0, -4.5});
  // Minimax slopes are float32 by definition: that is how its checkpoints are run.
  constexpr double kFloat32 = 4e-7;
  expect_values(
      decays("minimax", 3, 1, 3),
      {-std::exp2(-8.0 / 3) * (1 - 1 / 2.00001 + 1e-5), -std::exp2(-16.0 / 3) * (1 - 1 / 2.00001 + 1e-5),
       -std::exp2(-8.0) * (1 - 1 / 2.00001 + 1e-5)},
      kFloat32);
  for (const double value : decays("minimax", 3, 1, 3))
    EXPECT_EQ(value, static_cast<double>(static_cast<float>(value)));
  EXPECT_THROW(lightning_log_decay("alibbi", 4, 0, 1), ConfigError);
}

TEST(Lightning, IsCausal) {
  for (const auto& config : configs()) expect_causal(config, small_site());
}

TEST(Lightning, DecodesAsForward) {
  for (const auto& config : configs()) expect_decode_equals_forward(config, small_site());
}

TEST(Lightning, PackedDocumentsAreSeparate) {
  for (const auto& config : configs()) expect_packed_equals_separate(config, small_site());
}

TEST(Lightning, FusedIsTheFormula) {
  for (const auto& config : configs()) expect_fused_equals_reference(config, small_site());
}

TEST(Lightning, FusedIsTheFormulaOverSeveralChunks) {
  expect_fused_equals_reference(LightningConfig{}, small_site(), 150);
}

TEST(Lightning, BFloat16IsClose) {
  expect_bfloat16_close(LightningConfig{}, small_site());
  expect_bfloat16_close(LightningConfig{.form = "minimax"}, small_site());
  expect_bfloat16_close(LightningConfig{.form = "hypenet"}, small_site());
}

TEST(Lightning, TheStateHasOneSize) {
  const int64_t bytes = decode_bytes(LightningConfig{}, small_site(), 1);
  EXPECT_EQ(bytes, 4 * 16 * 8 * 4);
  EXPECT_EQ(decode_bytes(LightningConfig{}, small_site(), 200), bytes);
  EXPECT_EQ(overflow_message(LightningConfig{}, small_site()),
            "decoding: 3 tokens seen and 3 more do not fit max_tokens = 4");
}

TEST(Lightning, ChunkedWithCarriedStateIsWhole) {
  const int64_t batch = 2, tokens = 50, heads = 3, size = 4;
  const at::Tensor q = normal({batch, tokens, heads, size}, 1), k = normal({batch, tokens, heads, size}, 2),
                   v = normal({batch, tokens, heads, 5}, 3),
                   decay = lightning_log_decay("alibi", heads, 0, 2);
  const auto whole = lightning_attention_reference(q, k, v, decay, 0.5);
  at::Tensor state;
  for (int64_t begin = 0; begin < tokens; begin += 13) {
    const int64_t n = std::min<int64_t>(13, tokens - begin);
    const auto piece = [&](const at::Tensor& x) { return x.narrow(1, begin, n); };
    const auto part = lightning_attention_reference(piece(q), piece(k), piece(v), decay, 0.5, state);
    EXPECT_LE(relative_error(part.o, piece(whole.o)), 1e-13);
    state = part.state;
  }
  EXPECT_LE(relative_error(state, whole.state), 1e-13);
  const auto recurrent = recurrence_reference(q, k, v, decay, {}, {}, {.scale = 0.5});
  EXPECT_LE(relative_error(whole.o, recurrent.o), 1e-13);
  EXPECT_LE(relative_error(whole.state, recurrent.final_state), 1e-13);
}

TEST(Lightning, ForgetsNothingWithoutDecayAndNeverSeesTheFuture) {
  // A slope of zero must not unmask the future (MiniMax's published code masks by slope times distance).
  const at::Tensor q = normal({1, 6, 1, 4}, 1), k = normal({1, 6, 1, 4}, 2), v = normal({1, 6, 1, 4}, 3);
  const auto out = lightning_attention_reference(q, k, v, lightning_log_decay("none", 1, 0, 1), 1.0);
  at::Tensor sum = at::zeros_like(v.select(1, 0));
  for (int64_t t = 0; t < 6; ++t) {
    sum = at::zeros_like(sum);
    for (int64_t j = 0; j <= t; ++j) sum += (q.select(1, t) * k.select(1, j)).sum(-1, true) * v.select(1, j);
    EXPECT_LE(relative_error(out.o.select(1, t), sum), 1e-13);
  }
}

TEST(Lrpe, DependsOnDistanceAloneAndHasTheRightGradient) {
  const at::Tensor q = normal({1, 4, 2, 3}, 1), k = normal({1, 4, 2, 3}, 2), theta = normal({2, 1, 3}, 3);
  const at::Tensor positions = at::arange(4, at::kLong).unsqueeze(0);
  const auto [q0, k0] = lightning::lrpe(q, k, positions, theta);
  const auto [q9, k9] = lightning::lrpe(q, k, positions + 9, theta);
  const auto score = [](const at::Tensor& a, const at::Tensor& b) {
    return (a.select(1, 3) * b.select(1, 1)).sum(-1);
  };
  EXPECT_LE(relative_error(score(q9, k9), score(q0, k0)), 1e-13);
  EXPECT_LE(relative_error(q0.narrow(-1, 0, 3),
                           q * (positions.unsqueeze(-1).unsqueeze(-1) * theta.squeeze(1)).cos()),
            1e-14);
  const auto f = [&](const std::vector<at::Tensor>& x) {
    const auto [a, b] = lightning::lrpe(x[0], x[1], positions, x[2]);
    return a + b.flip(1);
  };
  EXPECT_LE(gradient_error(f, {q, k, theta}), 1e-7);
  const at::Tensor fresh = lightning::lrpe_theta(2, 3);
  EXPECT_NEAR(fresh[1][0][2].item<double>(), std::pow(10000.0, -2.0 * 5 / 6), 1e-9);
}

// The authors' layer, from transformers; row 1 begins with seven tokens of padding, which is a document that
// starts later.
void minimax_layer(at::ScalarType dtype, Implementation implementation, double tolerance) {
  const SafetensorsFile file(vector_path("lightning/minimax_layer"));
  const auto read = [&](const char* name) { return file.tensor(name).to(dtype); };
  const auto parameter = [&](const char* name) { return read(name).requires_grad_(true); };
  const LightningWeights weights{.in_proj = parameter("param.qkv_proj.weight"),
                                 .out_proj = parameter("param.out_proj.weight"),
                                 .output_gate = parameter("param.output_gate.weight"),
                                 .norm = parameter("param.norm.weight")};
  const at::Tensor log_decay = lightning_log_decay("minimax", 4, 2, 6);
  EXPECT_LE(relative_error(-log_decay, file.tensor("out.slope")), 1e-14);
  const LightningOptions options{.form = "minimax", .log_decay = log_decay, .implementation = implementation};
  const at::Tensor x = parameter("in.x"), mask = file.tensor("in.mask");
  at::Tensor loss = at::zeros_like(x).sum();
  for (int64_t row = 0; row < 2; ++row) {
    const int64_t padding = x.size(1) - mask[row].sum().item<int64_t>(), tokens = x.size(1) - padding;
    const auto real = [&](const at::Tensor& t) { return t.narrow(0, row, 1).narrow(1, padding, tokens); };
    const LightningOutput out = lightning_layer(real(x), {}, weights, options);
    EXPECT_LE(relative_error(out.y, real(file.tensor("out.o"))), tolerance) << "row " << row;
    EXPECT_LE(relative_error(out.state, file.tensor("out.state").narrow(0, row, 1)), tolerance)
        << "row " << row;
    loss = loss + (out.y * real(read("gout.o"))).sum() +
           (out.state * read("gout.state").narrow(0, row, 1)).sum();
  }
  loss.backward();
  EXPECT_LE(relative_error(x.grad(), file.tensor("grad.x")), tolerance);
  EXPECT_LE(relative_error(weights.in_proj.weight.grad(), file.tensor("grad.qkv_proj.weight")), tolerance);
  EXPECT_LE(relative_error(weights.out_proj.weight.grad(), file.tensor("grad.out_proj.weight")), tolerance);
  EXPECT_LE(relative_error(weights.output_gate.weight.grad(), file.tensor("grad.output_gate.weight")),
            tolerance);
  EXPECT_LE(relative_error(weights.norm.grad(), file.tensor("grad.norm.weight")), tolerance);
}

TEST(Lightning, MinimaxLayerIsTheAuthors) {
  minimax_layer(at::kDouble, Implementation::reference, 1e-9);
  minimax_layer(at::kFloat, Implementation::fused, 5e-6);
}

TEST(Lightning, SrmsNormIsTheAuthors) {
  const SafetensorsFile file(vector_path("lightning/srmsnorm"));
  for (const auto& [dtype, tolerance] : {std::pair{at::kDouble, 1e-12}, std::pair{at::kFloat, 1e-6}}) {
    const at::Tensor x = file.tensor("in.x").to(dtype).requires_grad_(true);
    const at::Tensor y = rms_norm(x, {}, 1e-6);
    y.backward(file.tensor("gout.o").to(dtype));
    EXPECT_LE(relative_error(y, file.tensor("out.o")), tolerance);
    EXPECT_LE(relative_error(x.grad(), file.tensor("grad.x")), tolerance);
  }
}

TEST(Lrpe, FarPositionsKeepTheirAngle) {
  const at::Tensor theta = lightning::lrpe_theta(2, 8), positions = at::arange(999990, 1000000).unsqueeze(0);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor ones = at::ones({1, 10, 2, 8}, dtype);
    const at::Tensor found = lightning::lrpe(ones, ones, positions, theta).first;
    for (int64_t t = 0; t < 10; ++t)
      for (int64_t i = 0; i < 16; ++i) {
        const double angle = static_cast<double>(999990 + t) * theta.flatten()[i].item<double>();
        const at::Tensor pair = found[0][t][i / 8];
        // One rounding of a number of at most 1.
        const double limit = dtype == at::kFloat ? 0x1p-24 : 0x1p-8;
        EXPECT_NEAR(pair[i % 8].item<double>(), std::cos(angle), limit) << t << " " << i;
        EXPECT_NEAR(pair[8 + i % 8].item<double>(), std::sin(angle), limit) << t << " " << i;
      }
  }
}

}  // namespace
}  // namespace longreach
