// The decoder with every mix of mechanisms: recomputation, chunked loss, mixed precision and decoding.
#include "models/transformer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "core/error.h"
#include "layers/basic/loss.h"
#include "models/generate.h"
#include "tests/support/random_tensors.h"
#include "tests/support/small_model.h"

namespace longreach {
namespace {

using namespace test;

ModelConfig hybrid() {
  ModelConfig config = small_model();
  config.num_hidden_layers = 4;
  config.qk_norm = true;
  config.attention = {{.layers = "0,2", .config = LightningConfig{.chunk = 16}},
                      {.layers = "1", .config = SlidingConfig{.window = 7, .sinks = 1}},
                      {.layers = "3", .config = DenseConfig{}}};
  return config;
}

ModelConfig resolved(ModelConfig config, Implementation implementation = Implementation::fused) {
  config.implementation = implementation;
  config.resolve(50);
  return config;
}

at::Tensor some_tokens(int64_t rows, int64_t tokens) {
  return (normal({rows, tokens}, 11).mul_(1e4).to(at::kLong)).remainder(50);
}

std::map<std::string, at::Tensor> gradients(Transformer& model, const LossOptions& options,
                                            at::Tensor* loss = nullptr) {
  const at::Tensor tokens = some_tokens(2, 41), labels = some_tokens(2, 42).narrow(1, 1, 41).clone();
  labels[0].narrow(0, 3, 5).fill_(kIgnoredLabel);
  model.zero_grad();
  const LossOutput out = model.loss(tokens, labels, whole_rows(2, 41), options);
  EXPECT_EQ(out.tokens, 77);
  (out.loss_sum / static_cast<double>(out.tokens)).backward();
  if (loss) *loss = out.loss_sum.detach();
  std::map<std::string, at::Tensor> found;
  for (const auto& item : model.named_parameters()) found[item.key()] = item.value().grad().clone();
  return found;
}

TEST(Transformer, ParameterNamesAreHuggingFaces) {
  ModelConfig config = hybrid();
  config.tie_word_embeddings = false;
  Transformer model(resolved(config), 1);
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const auto& item : model.named_parameters()) shapes[item.key()] = item.value().sizes().vec();
  using Shape = std::vector<int64_t>;
  EXPECT_EQ(shapes.at("model.embed_tokens.weight"), (Shape{50, 32}));
  EXPECT_EQ(shapes.at("lm_head.weight"), (Shape{50, 32}));
  EXPECT_EQ(shapes.at("model.norm.weight"), (Shape{32}));
  EXPECT_EQ(shapes.at("model.layers.3.self_attn.q_proj.weight"), (Shape{32, 32}));
  EXPECT_EQ(shapes.at("model.layers.3.self_attn.k_proj.weight"), (Shape{16, 32}));
  EXPECT_EQ(shapes.at("model.layers.3.self_attn.v_proj.weight"), (Shape{16, 32}));
  EXPECT_EQ(shapes.at("model.layers.3.self_attn.o_proj.weight"), (Shape{32, 32}));
  EXPECT_EQ(shapes.at("model.layers.3.self_attn.q_norm.weight"), (Shape{8}));
  EXPECT_EQ(shapes.at("model.layers.1.mlp.gate_proj.weight"), (Shape{48, 32}));
  EXPECT_EQ(shapes.at("model.layers.1.mlp.down_proj.weight"), (Shape{32, 48}));
  EXPECT_EQ(shapes.at("model.layers.1.input_layernorm.weight"), (Shape{32}));
  EXPECT_EQ(shapes.at("model.layers.1.post_attention_layernorm.weight"), (Shape{32}));
  EXPECT_EQ(shapes.at("model.layers.2.self_attn.qkvu_proj.weight"), (Shape{128, 32}));
  EXPECT_EQ(shapes.at("model.layers.2.self_attn.lrpe.theta"), (Shape{4, 1, 8}));
  EXPECT_EQ(shapes.count("model.layers.0.self_attn.lrpe.theta"), 0u);
}

TEST(Transformer, TheSeedAloneDecidesTheParameters) {
  Transformer a(resolved(hybrid()), 1), b(resolved(hybrid()), 1), other(resolved(hybrid()), 2);
  ModelConfig dense = hybrid();
  dense.attention.clear();
  Transformer mixed(resolved(dense), 1);
  for (const auto& item : a.named_parameters()) {
    EXPECT_TRUE(item.value().equal(b.named_parameters()[item.key()])) << item.key();
    if (item.value().dim() == 2) {
      EXPECT_FALSE(item.value().equal(other.named_parameters()[item.key()])) << item.key();
    }
    if (item.key().find("mlp") != std::string::npos) {
      EXPECT_TRUE(item.value().equal(mixed.named_parameters()[item.key()])) << item.key();
    }
  }
  const at::Tensor down = a.named_parameters()["model.layers.0.mlp.down_proj.weight"];
  EXPECT_NEAR(down.std().item<double>(), 0.2 / std::sqrt(8.0), 0.005);
  EXPECT_NEAR(a.named_parameters()["model.embed_tokens.weight"].std().item<double>(), 0.2, 0.02);
}

TEST(Transformer, RecomputationGivesTheSameBits) {
  Transformer model(resolved(hybrid()), 1);
  for (const bool bf16 : {false, true}) {
    at::Tensor plain_loss, recomputed_loss;
    const auto plain = gradients(model, {.autocast_bf16 = bf16}, &plain_loss);
    const auto again = gradients(model, {.autocast_bf16 = bf16});
    const auto recomputed =
        gradients(model, {.activation_checkpoint = "full", .autocast_bf16 = bf16}, &recomputed_loss);
    EXPECT_TRUE(plain_loss.equal(recomputed_loss));
    for (const auto& [name, gradient] : plain) {
      EXPECT_TRUE(gradient.equal(again.at(name))) << name;
      EXPECT_TRUE(gradient.equal(recomputed.at(name))) << name;
    }
  }
  EXPECT_THROW(gradients(model, {.activation_checkpoint = "selective"}), ConfigError);
}

TEST(Transformer, RecomputationAccumulatesOverMicroBatchesAndFrozenParameters) {
  Transformer model(resolved(hybrid()), 1);
  for (auto& item : model.named_parameters())
    if (item.key().find("layers.1.") != std::string::npos) item.value().requires_grad_(false);
  const auto twice = [&](const std::string& mode) {
    model.zero_grad();
    for (const int64_t seed : {1, 2}) {
      const at::Tensor tokens = some_tokens(1, 20).roll(seed, 1);
      model.loss(tokens, tokens.roll(-1, 1), whole_rows(1, 20), {.activation_checkpoint = mode})
          .loss_sum.backward();
    }
    std::vector<at::Tensor> found;
    for (const auto& parameter : model.parameters())
      if (parameter.requires_grad()) found.push_back(parameter.grad().clone());
    return found;
  };
  const auto plain = twice("none"), recomputed = twice("full");
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_TRUE(plain[i].equal(recomputed[i])) << i;
}

TEST(Transformer, FusedLayersAreTheReferenceInFloat64) {
  for (const bool tied : {true, false}) {
    ModelConfig config = hybrid();
    config.tie_word_embeddings = tied;
    Transformer fused(resolved(config), 1), reference(resolved(config, Implementation::reference), 1);
    reference.to(at::kDouble);
    at::Tensor loss, exact_loss;
    const auto found = gradients(fused, {.z_loss = 1e-3, .chunk_tokens = 16}, &loss);
    const auto exact = gradients(reference, {.z_loss = 1e-3}, &exact_loss);
    EXPECT_LE(relative_error(loss, exact_loss), 1e-6);
    for (const auto& [name, gradient] : exact)
      EXPECT_LE(relative_error(found.at(name), gradient), 2e-5) << name;
  }
}

TEST(Transformer, ChunkedLossIsTheWholeLoss) {
  Transformer model(resolved(hybrid()), 1);
  const at::Tensor tokens = some_tokens(2, 30), labels = tokens.roll(-1, 1);
  labels.select(1, 29).fill_(kIgnoredLabel);
  const at::NoGradGuard no_grad;
  const at::Tensor logits = model.logits(tokens, whole_rows(2, 30)).to(at::kDouble);
  const at::Tensor nll =
      (logits.logsumexp(-1) - logits.gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)) *
      labels.ge(0);
  for (const int64_t chunk : {1, 7, 4096}) {
    const LossOutput out = model.loss(tokens, labels, whole_rows(2, 30), {.chunk_tokens = chunk});
    EXPECT_NEAR(out.nll_sum.item<double>() / nll.sum().item<double>(), 1.0, 1e-6);
    EXPECT_EQ(out.nll_sum.scalar_type(), at::kDouble);
    EXPECT_EQ(out.loss_sum.scalar_type(), at::kFloat);
    EXPECT_LE(
        relative_error(model.token_nll(tokens, labels, whole_rows(2, 30), {.chunk_tokens = chunk}), nll),
        1e-6);
  }
}

TEST(Transformer, MixedPrecisionIsClose) {
  for (const char* residual : {"float32", "bfloat16"}) {
    ModelConfig config = hybrid();
    config.initializer_range = 0.05;
    config.residual_dtype = residual;
    Transformer model(resolved(config), 1);
    Transformer plain_model(resolved(config, Implementation::reference), 1);
    at::Tensor exact_loss, loss, plain_loss;
    const auto exact = gradients(model, {}, &exact_loss),
               found = gradients(model, {.autocast_bf16 = true}, &loss),
               plain = gradients(plain_model, {.autocast_bf16 = true}, &plain_loss);
    // What the formula loses in bfloat16, twice, and half a unit of its last place: the rounding of a result.
    const auto limit = [](const at::Tensor& rounded, const at::Tensor& truth) {
      return 2.0 * relative_error(rounded, truth) + 0x1p-9;
    };
    EXPECT_LE(relative_error(loss, exact_loss), limit(plain_loss, exact_loss)) << residual;
    for (const auto& [name, gradient] : found) {
      EXPECT_EQ(gradient.scalar_type(), at::kFloat) << name;
      EXPECT_LE(relative_error(gradient, exact.at(name)), limit(plain.at(name), exact.at(name)))
          << residual << " " << name;
    }
  }
}

TEST(Transformer, PackedDocumentsAreSeparate) {
  Transformer model(resolved(hybrid()), 1);
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = some_tokens(1, 40);
  const at::Tensor packed = model.logits(
      tokens, {.positions = at::cat({at::arange(13, at::kLong), at::arange(27, at::kLong)}).unsqueeze(0),
               .cu_seqlens = at::tensor({0, 13, 40}, at::kInt)});
  const at::Tensor first = model.logits(tokens.narrow(1, 0, 13), whole_rows(1, 13));
  const at::Tensor second = model.logits(tokens.narrow(1, 13, 27), whole_rows(1, 27));
  EXPECT_LE(relative_error(packed, at::cat({first, second}, 1)), 5e-6);
}

// A row without tokens, packed from no documents or not, costs nothing and teaches nothing; decoding none is
// an error of ours.
TEST(Transformer, NoTokens) {
  Transformer model(resolved(hybrid()), 1);
  const at::Tensor none = at::arange(0, at::kLong).unsqueeze(0);
  for (const char* mode : {"none", "full"})
    for (const at::Tensor& bounds : {at::Tensor(), at::tensor({0}, at::kInt), at::tensor({0, 0}, at::kInt)}) {
      model.zero_grad();
      const Batch batch{.positions = none, .cu_seqlens = bounds};
      EXPECT_EQ(model.logits(none, batch).sizes(), (std::vector<int64_t>{1, 0, 50}));
      const LossOutput out = model.loss(none, none, batch, {.activation_checkpoint = mode});
      EXPECT_EQ(out.tokens, 0);
      EXPECT_EQ(out.loss_sum.item<double>(), 0.0);
      out.loss_sum.backward();
      for (const auto& item : model.named_parameters()) {
        const at::Tensor gradient = item.value().grad();
        EXPECT_TRUE(!gradient.defined() || gradient.eq(0).all().item<bool>()) << item.key();
      }
    }
  ModelDecodeState state = model.start_decoding(1, 4);
  EXPECT_THROW(model.decode(none, state), ShapeError);
  EXPECT_EQ(state.tokens(), 0);
}

// What a layer is computed again from may not change in between.
TEST(Transformer, RecomputationRefusesInputsThatHaveChanged) {
  Transformer model(resolved(hybrid()), 1);
  const at::Tensor tokens = some_tokens(1, 20), cu_seqlens = at::tensor({0, 8, 20}, at::kInt),
                   positions = at::cat({at::arange(8), at::arange(12)}).unsqueeze(0);
  for (const bool bounds : {false, true}) {
    const LossOutput out =
        model.loss(tokens, tokens.roll(-1, 1), {.positions = positions, .cu_seqlens = cu_seqlens},
                   {.activation_checkpoint = "full"});
    (bounds ? cu_seqlens : positions).select(-1, 1).add_(1);
    EXPECT_THROW(out.loss_sum.backward(), std::exception);
  }
}

TEST(Transformer, DecodingIsForward) {
  Transformer model(resolved(hybrid()), 1);
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = some_tokens(2, 33), logits = model.logits(tokens, whole_rows(2, 33));
  ModelDecodeState state = model.start_decoding(2, 33);
  int64_t seen = 0;
  for (const int64_t n : {5, 1, 1, 20, 6}) {
    const at::Tensor last = model.decode(tokens.narrow(1, seen, n), state);
    seen += n;
    EXPECT_LE(relative_error(last, logits.select(1, seen - 1)), 1e-5) << seen;
    EXPECT_EQ(state.tokens(), seen);
  }
  EXPECT_GT(state.bytes(), 0);
  EXPECT_THROW(model.decode(tokens.narrow(1, 0, 1), state), UserError);
}

TEST(Transformer, CountsOperations) {
  ModelConfig config = hybrid();
  config.attention = {{.layers = "all", .config = SlidingConfig{.window = 8}}};
  config.qk_norm = false;
  Transformer sliding(resolved(config), 1);
  config.attention.clear();
  Transformer dense(resolved(config), 1);
  const double matrices = 4 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 48) + 50 * 32;
  EXPECT_DOUBLE_EQ(dense.flops_per_token(101), 3 * (2 * matrices + 4 * 4 * 32 * 51.0));
  EXPECT_NEAR(sliding.flops_per_token(1 << 20), 3 * (2 * matrices + 4 * 4 * 32 * 8.0), 1.0);
  EXPECT_DOUBLE_EQ(sliding.flops_per_token(4), dense.flops_per_token(4));
}

TEST(Transformer, RefusesTokensOutsideTheVocabulary) {
  Transformer model(resolved(hybrid()), 1);
  EXPECT_THROW(model.logits(at::tensor({3, 50}, at::kLong).unsqueeze(0), whole_rows(1, 2)), DataError);
  EXPECT_THROW(model.logits(at::tensor({3, 4}, at::kLong).unsqueeze(0), whole_rows(1, 3)), ShapeError);
}

TEST(Generate, GreedyFollowsTheParallelLogits) {
  Transformer model(resolved(hybrid()), 3);
  const at::NoGradGuard no_grad;
  std::vector<int64_t> all{7, 3, 21};
  std::vector<int64_t> streamed;
  const auto found = generate(model, all, {.max_new_tokens = 12, .temperature = 0.0, .prefill_chunk = 2},
                              [&](int64_t token) {
                                streamed.push_back(token);
                                return true;
                              });
  EXPECT_EQ(found, streamed);
  ASSERT_EQ(found.size(), 12u);
  for (const int64_t token : found) {
    const at::Tensor logits = model.logits(at::tensor(all, at::kLong).unsqueeze(0),
                                           whole_rows(1, static_cast<int64_t>(all.size())));
    EXPECT_EQ(token, logits[0][-1].argmax().item<int64_t>());
    all.push_back(token);
  }
}

// Behind a prompt that is longer than the original length, however it is cut, and up to that length.
TEST(Generate, UnderLongropeStaysOnOneSideOfTheOriginalLength) {
  ModelConfig config = hybrid();
  config.rope = {.rope_type = "longrope",
                 .factor = 4.0,
                 .original_max_position_embeddings = 9,
                 .short_factor = {1.0, 1.5, 2.0, 3.0},
                 .long_factor = {1.0, 4.0, 6.0, 9.0}};
  Transformer model(resolved(config), 3);
  const at::NoGradGuard no_grad;
  for (const std::vector<int64_t>& prompt :
       {std::vector<int64_t>{7, 3, 21}, std::vector<int64_t>{7, 3, 21, 4, 9, 1, 30, 2, 5, 11, 8}}) {
    std::vector<int64_t> all = prompt;
    for (const int64_t token :
         generate(model, prompt, {.max_new_tokens = 7, .temperature = 0.0, .prefill_chunk = 4})) {
      const at::Tensor logits =
          model.logits(at::tensor(all, at::kLong).unsqueeze(0), whole_rows(1, std::ssize(all)));
      EXPECT_EQ(token, logits[0][-1].argmax().item<int64_t>()) << all.size();
      all.push_back(token);
    }
    EXPECT_EQ(all.size(), prompt.size() + 7);
  }
  EXPECT_THROW(generate(model, {7, 3, 21}, {.max_new_tokens = 8}), ConfigError);
}

// The room for more tokens than the original length changes nothing; what would need other angles is refused
// beforehand.
TEST(Generate, UnderDynamicRopeGoesAsFarAsTheOriginalLength) {
  ModelConfig config = hybrid();
  config.rope = {.rope_type = "dynamic", .factor = 4.0, .original_max_position_embeddings = 9};
  Transformer model(resolved(config), 3);
  const at::NoGradGuard no_grad;
  const auto likeliest = [&](const std::vector<int64_t>& tokens) {
    return model.logits(at::tensor(tokens, at::kLong).unsqueeze(0), whole_rows(1, std::ssize(tokens)))[0][-1]
        .argmax()
        .item<int64_t>();
  };
  std::vector<int64_t> all{7, 3, 21};
  for (const int64_t token : generate(model, all, {.max_new_tokens = 7, .temperature = 0.0})) {
    EXPECT_EQ(token, likeliest(all)) << all.size();
    all.push_back(token);
  }
  ASSERT_EQ(all.size(), 10u);
  const auto message = [&](const SamplingOptions& options) -> std::string {
    int64_t drawn = 0;
    try {
      generate(model, all, options, [&](int64_t) { return ++drawn > 0; });
    } catch (const ConfigError& error) {
      EXPECT_EQ(drawn, 0);
      return error.what();
    }
    return "";
  };
  // A prompt read at once has the angles of its length.
  EXPECT_EQ(generate(model, all, {.max_new_tokens = 1, .temperature = 0.0}).at(0), likeliest(all));
  EXPECT_EQ(
      message({.max_new_tokens = 3}),
      "rope_scaling.rope_type = \"dynamic\": decoding goes on to token 12, expected at most "
      "original_max_position_embeddings = 9: beyond it each token changes the angles of all keys before it, "
      "which are cached; linear, yarn and llama3 can");
  EXPECT_EQ(generate(model, all, {.max_new_tokens = 1, .temperature = 0.0, .prefill_chunk = 4}).at(0),
            likeliest(all));
  config.attention = {{.layers = "all", .config = DenseConfig{.rope = false}}};
  Transformer unturned(resolved(config), 3);
  EXPECT_EQ(generate(unturned, all, {.max_new_tokens = 5}).size(), 5u);
}

TEST(Generate, SeedAndStepAloneDecide) {
  Transformer model(resolved(hybrid()), 3);
  const SamplingOptions options{.max_new_tokens = 20, .temperature = 1.5, .seed = 4};
  SamplingOptions pieces = options, other = options;
  pieces.prefill_chunk = 1;
  other.seed = 5;
  const auto first = generate(model, {1, 2, 3, 4, 5}, options);
  EXPECT_EQ(first, generate(model, {1, 2, 3, 4, 5}, pieces));
  EXPECT_NE(first, generate(model, {1, 2, 3, 4, 5}, other));
}

TEST(Generate, NarrowSamplingIsGreedy) {
  Transformer model(resolved(hybrid()), 3);
  const auto greedy = generate(model, {9}, {.max_new_tokens = 10, .temperature = 0.0});
  EXPECT_EQ(greedy, generate(model, {9}, {.max_new_tokens = 10, .temperature = 3.0, .top_k = 1}));
  EXPECT_EQ(greedy, generate(model, {9}, {.max_new_tokens = 10, .temperature = 3.0, .top_p = 1e-9}));
}

TEST(Generate, TiesGoToTheLowestIdAndSamplesFollowTheDistribution) {
  ModelConfig config = hybrid();
  Transformer model(resolved(config), 3);
  const at::NoGradGuard no_grad;
  for (auto& parameter : model.parameters()) parameter.zero_();  // every logit is zero
  EXPECT_EQ(generate(model, {9}, {.max_new_tokens = 3, .temperature = 0.0}), (std::vector<int64_t>{0, 0, 0}));
  std::vector<int64_t> counts(50, 0);
  for (const int64_t token : generate(model, {9}, {.max_new_tokens = 2000})) ++counts[token];
  for (const int64_t count : counts) EXPECT_NEAR(static_cast<double>(count), 40.0, 6.0 * std::sqrt(40.0));
  for (const int64_t token : generate(model, {9}, {.max_new_tokens = 50, .top_k = 3})) EXPECT_LT(token, 3);
  for (const int64_t token : generate(model, {9}, {.max_new_tokens = 50, .top_p = 0.1})) EXPECT_LT(token, 5);
}

TEST(Generate, StopsWhereItShould) {
  Transformer model(resolved(hybrid()), 3);
  const auto free = generate(model, {9}, {.max_new_tokens = 10, .temperature = 0.0});
  const auto stopped =
      generate(model, {9}, {.max_new_tokens = 10, .temperature = 0.0, .stop_tokens = {free[0]}});
  EXPECT_EQ(stopped, (std::vector<int64_t>{free[0]}));
  EXPECT_EQ(generate(model, {9}, {.max_new_tokens = 10}, [](int64_t) { return false; }).size(), 1u);
  EXPECT_TRUE(generate(model, {9}, {.max_new_tokens = 0}).empty());
  EXPECT_THROW(generate(model, {}, {}), UserError);
  EXPECT_THROW(generate(model, {9}, {.top_p = 0.0}), UserError);
}

}  // namespace
}  // namespace longreach
