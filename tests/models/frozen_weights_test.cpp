// Frozen weights in bfloat16 beside adapters that train, for every mechanism: what is computed is what
// rounded weights in float32 give.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "layers/basic/projection.h"
#include "models/adapter.h"
#include "models/weight_dtype.h"
#include "tests/support/random_tensors.h"
#include "tests/support/small_model.h"

namespace longreach {
namespace {

using namespace test;

constexpr int64_t kTokens = 80;

ModelConfig model_of(const AttentionConfig& attention, bool tied = true) {
  ModelConfig config = small_model();
  config.attention = {{.layers = "all", .config = attention}};
  config.tie_word_embeddings = tied;
  config.resolve(50);
  return config;
}

at::Tensor some_tokens(uint64_t seed) {
  return normal({1, kTokens}, seed).mul_(1e4).to(at::kLong).remainder(50);
}

// Adapters that change something, beside feed-forward blocks, which every layer has.
const AdapterConfig kAdapters{.type = "lora",
                              .lora_dropout = 0.2,
                              .target_modules = {"gate_proj", "down_proj"},
                              .modules_to_save = {"norm"}};

struct Pair {
  Transformer stored, rounded;  // bfloat16; float32 of the same values

  explicit Pair(const ModelConfig& config, const AdapterConfig& adapters = kAdapters)
      : stored(config, 1), rounded(config, 1) {
    const at::NoGradGuard no_grad;
    for (Transformer* model : {&stored, &rounded}) {
      add_adapters(*model, adapters, 1);
      uint64_t seed = 0;
      for (auto& item : model->named_parameters())
        if (item.key().find(".lora_B.") != std::string::npos)
          item.value().copy_(normal(item.value().sizes(), ++seed, at::kFloat) * 0.1);
    }
    store_frozen_weights_as(stored, at::kBFloat16);
    const auto values = stored.named_parameters();
    for (auto& item : rounded.named_parameters()) item.value().copy_(values[item.key()]);
  }
};

// Of every parameter that has one, and the loss.
std::map<std::string, at::Tensor> gradients(Transformer& model, const LossOptions& options) {
  model.zero_grad();
  begin_pass(model, 3);
  const LossOutput out = model.loss(some_tokens(1), some_tokens(2), whole_rows(1, kTokens), options);
  at::Tensor loss = out.loss_sum;
  for (const auto& [name, value] : out.auxiliary) loss = loss + value;
  loss.backward();
  std::map<std::string, at::Tensor> found{{"loss", loss.detach()}};
  for (const auto& item : model.named_parameters())
    if (item.value().grad().defined()) found[item.key()] = item.value().grad().clone();
  return found;
}

void expect_same_bits(const std::map<std::string, at::Tensor>& found,
                      const std::map<std::string, at::Tensor>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    ASSERT_TRUE(found.contains(name)) << name;
    EXPECT_TRUE(found.at(name).equal(tensor)) << name << ": " << relative_error(found.at(name), tensor);
  }
}

class FrozenWeightsOf : public testing::TestWithParam<AttentionConfig> {};
INSTANTIATE_TEST_SUITE_P(Kinds, FrozenWeightsOf, testing::ValuesIn(all_attention_configs()),
                         [](const auto& info) { return std::string(kind_of(info.param)); });

TEST_P(FrozenWeightsOf, TrainAsRoundedOnesDo) {
  Pair models(model_of(GetParam()));
  for (const bool bf16 : {false, true}) {
    if (bf16 && !limitations_of(GetParam()).empty()) continue;
    SCOPED_TRACE(bf16 ? "bfloat16" : "float32");
    const auto expected = gradients(models.rounded, {.autocast_bf16 = bf16});
    EXPECT_TRUE(expected.contains("model.layers.0.mlp.gate_proj.lora_A.weight"));
    expect_same_bits(gradients(models.stored, {.autocast_bf16 = bf16}), expected);
    expect_same_bits(gradients(models.stored, {.activation_checkpoint = "full", .autocast_bf16 = bf16}),
                     expected);
  }
}

TEST(FrozenWeights, AreThoseOfLinearMapsAndEmbeddingThatDoNotTrain) {
  AdapterConfig adapters = kAdapters;
  adapters.modules_to_save = {"embed", "k_proj"};
  const Pair models(model_of(DenseConfig{}, /*tied=*/false), adapters);
  for (const auto& item : models.stored.named_parameters()) {
    const bool wide = item.value().dim() < 2 || item.value().requires_grad();
    EXPECT_EQ(item.value().scalar_type(), wide ? at::kFloat : at::kBFloat16) << item.key();
  }
  const auto parameters = models.stored.named_parameters();
  EXPECT_TRUE(parameters["model.layers.0.self_attn.k_proj.weight"].requires_grad());
  EXPECT_EQ(parameters["lm_head.weight"].scalar_type(), at::kBFloat16);
}

// Adapters and bias beside a frozen weight against float64: sums of so few products of float32 stay within a
// few units of its last place, 2^-24, of the RMS.
TEST(FrozenWeights, GradientsBesideThemAreThoseOfFloat64) {
  const at::Tensor weight = normal({70, 48}, 1, at::kBFloat16), dy = normal({2, 33, 70}, 2);
  const auto derivatives = [&](at::ScalarType dtype, const at::Tensor& frozen) {
    std::vector<at::Tensor> in;
    for (const auto& [shape, seed] :
         {std::pair<std::vector<int64_t>, uint64_t>{{2, 33, 48}, 3}, {{4, 48}, 4}, {{70, 4}, 5}})
      in.push_back(normal(shape, seed, at::kFloat).to(dtype).clone().requires_grad_());
    const at::Tensor y =
        linear_map(in[0], Projection(frozen, {}, LowRank{.a = in[1], .b = in[2], .scale = 2.0}));
    (y * dy.to(dtype)).sum().backward();
    std::vector<at::Tensor> found{y.detach()};
    for (const at::Tensor& leaf : in) found.push_back(leaf.grad());
    return found;
  };
  const auto found = derivatives(at::kFloat, weight),
             expected = derivatives(at::kDouble, weight.to(at::kDouble));
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].scalar_type(), at::kFloat);
    EXPECT_LT(relative_error(found[i], expected[i]), 1e-6) << i;
  }
}

TEST(FrozenWeights, DecodeWhatRoundedOnesDo) {
  const at::NoGradGuard no_grad;
  Pair models(model_of(DenseConfig{}));
  const at::Tensor tokens = some_tokens(1);
  const auto decoded = [&](Transformer& model) {
    model.eval();
    ModelDecodeState state = model.start_decoding(1, kTokens);
    const at::Tensor prompt = model.decode(tokens.narrow(1, 0, 7), state);
    return at::cat({prompt, model.decode(tokens.narrow(1, 7, 1), state),
                    model.logits(tokens, whole_rows(1, kTokens))[0]});
  };
  EXPECT_TRUE(decoded(models.stored).equal(decoded(models.rounded)));
}

}  // namespace
}  // namespace longreach
