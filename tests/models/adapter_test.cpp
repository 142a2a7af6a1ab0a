// Adapters in whole models of every mechanism: what trains, what stays, that each of them is used, and what
// is refused.
#include "models/adapter.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "core/config.h"
#include "core/error.h"
#include "tests/support/random_tensors.h"
#include "tests/support/small_model.h"

namespace longreach {
namespace {

using namespace test;

constexpr int64_t kTokens = 80;

ModelConfig model_of(const AttentionConfig& attention) {
  ModelConfig config = small_model();
  config.attention = {{.layers = "all", .config = attention}};
  config.resolve(50);
  return config;
}

at::Tensor some_tokens(uint64_t seed) {
  return normal({1, kTokens}, seed).mul_(1e4).to(at::kLong).remainder(50);
}

// The projections of a kind: those of the error that names them.
std::vector<std::string> all_targets(const AttentionConfig& attention) {
  Transformer model(model_of(attention), 1);
  try {
    add_adapters(model, {.type = "lora", .target_modules = {"no_such"}}, 1);
  } catch (const ConfigError& error) {
    const std::string message = error.what(), before = "this model has ";
    std::vector<std::string> names;
    std::istringstream list(message.substr(message.find(before) + before.size()));
    for (std::string name; std::getline(list, name, ',');) names.push_back(name.substr(name[0] == ' '));
    return names;
  }
  return {};
}

at::Tensor loss_of(Transformer& model, const LossOptions& options = {}) {
  const LossOutput out = model.loss(some_tokens(1), some_tokens(2), whole_rows(1, kTokens), options);
  at::Tensor loss = out.loss_sum;
  for (const auto& [name, value] : out.auxiliary) loss = loss + value;
  return loss;
}

std::map<std::string, at::Tensor> gradients(Transformer& model, const LossOptions& options) {
  model.zero_grad();
  loss_of(model, options).backward();
  std::map<std::string, at::Tensor> found;
  for (const auto& item : model.named_parameters())
    if (item.value().grad().defined()) found[item.key()] = item.value().grad().clone();
  return found;
}

// B is zero at first, which hides A.
void fill_adapters(Transformer& model) {
  const at::NoGradGuard no_grad;
  uint64_t seed = 0;
  for (auto& item : model.named_parameters())
    if (item.key().find(".lora_B.") != std::string::npos)
      item.value().copy_(normal(item.value().sizes(), ++seed, at::kFloat) * 0.1);
}

class AdaptedModel : public testing::TestWithParam<AttentionConfig> {};

TEST_P(AdaptedModel, EveryProjectionIsFoundUsedAndMerged) {
  const std::vector<std::string> targets = all_targets(GetParam());
  ASSERT_GE(targets.size(), 5u);
  Transformer base(model_of(GetParam()), 1), model(model_of(GetParam()), 1);
  add_adapters(model, {.type = "lora", .r = 3, .lora_alpha = 6, .target_modules = targets}, 1);
  EXPECT_TRUE(loss_of(model).equal(loss_of(base))) << "zero B changes the output";

  const auto found = gradients(model, {});
  size_t adapters = 0;
  for (const auto& item : model.named_parameters()) {
    EXPECT_EQ(item.value().requires_grad(), is_adapter_parameter(item.key())) << item.key();
    if (item.key().find(".lora_B.") == std::string::npos) continue;
    ++adapters;
    ASSERT_TRUE(found.count(item.key())) << item.key();
    EXPECT_GT(found.at(item.key()).abs().max().item<double>(), 0.0) << item.key() << " is not used";
  }
  EXPECT_EQ(adapters, targets.size() * 2);

  fill_adapters(model);
  const double adapted = loss_of(model).item<double>();
  EXPECT_GT(std::abs(adapted - loss_of(base).item<double>()), 1e-2);
  const auto merged = merged_weights(model);
  EXPECT_EQ(merged.size(), adapters);
  {
    const at::NoGradGuard no_grad;
    for (auto& item : base.named_parameters())
      if (merged.count(item.key())) item.value().copy_(merged.at(item.key()));
  }
  model.eval();
  base.eval();
  const at::NoGradGuard no_grad;
  const Batch rows = whole_rows(1, kTokens);
  EXPECT_LE(relative_error(model.token_nll(some_tokens(1), some_tokens(2), rows),
                           base.token_nll(some_tokens(1), some_tokens(2), rows)),
            1e-5);
}

TEST_P(AdaptedModel, RecomputesItsDropoutMasks) {
  for (const bool bf16 : {false, true}) {
    if (bf16 && !limitations_of(GetParam()).empty()) continue;
    Transformer model(model_of(GetParam()), 1);
    add_adapters(model,
                 {.type = "lora",
                  .lora_dropout = 0.3,
                  .target_modules = all_targets(GetParam()),
                  .modules_to_save = {"embed", "norm"}},
                 1);
    fill_adapters(model);
    begin_pass(model, 3);
    const auto plain = gradients(model, {.autocast_bf16 = bf16});
    const auto recomputed = gradients(model, {.activation_checkpoint = "full", .autocast_bf16 = bf16});
    ASSERT_EQ(plain.size(), recomputed.size());
    for (const auto& [name, gradient] : plain) EXPECT_TRUE(gradient.equal(recomputed.at(name))) << name;
    EXPECT_TRUE(plain.count("model.embed_tokens.weight"));
    begin_pass(model, 4);
    const auto other = gradients(model, {.autocast_bf16 = bf16});
    EXPECT_FALSE(other.at("model.norm.weight").equal(plain.at("model.norm.weight")));
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, AdaptedModel, testing::ValuesIn(all_attention_configs()),
                         [](const auto& info) { return std::string(kind_of(info.param)); });

TEST(Adapters, NamesAreThoseOfPeftAndTypeNoneDoesNothing) {
  Transformer model(model_of(DenseConfig{}), 1), plain(model_of(DenseConfig{}), 1);
  add_adapters(plain, {.target_modules = {"no_such"}}, 1);
  EXPECT_EQ(plain.named_parameters().size(), 2u * 9 + 2);
  for (const auto& parameter : plain.parameters()) EXPECT_TRUE(parameter.requires_grad());
  add_adapters(model,
               {.type = "lora", .target_modules = {"q_proj", "down_proj"}, .modules_to_save = {"norm"}}, 1);
  const auto parameters = model.named_parameters();
  EXPECT_EQ(parameters.size(), 2u * 9 + 2 + 8);
  EXPECT_TRUE(parameters.contains("model.layers.1.self_attn.q_proj.lora_A.weight"));
  EXPECT_TRUE(parameters.contains("model.layers.0.mlp.down_proj.lora_B.weight"));
  size_t saved = 0;
  for (const auto& item : parameters)
    if (item.value().requires_grad() && !is_adapter_parameter(item.key())) ++saved;
  EXPECT_EQ(saved, 5u);
}

TEST(Adapters, AreHeldToWhatTheModelHas) {
  const auto refused = [](const AdapterConfig& config) {
    Transformer model(model_of(DenseConfig{}), 1);
    try {
      add_adapters(model, config, 1);
    } catch (const ConfigError& error) {
      for (const auto& parameter : model.parameters()) EXPECT_TRUE(parameter.requires_grad());
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(refused({.type = "lora", .target_modules = {"q_proj", "qproj"}}),
            "adapter.target_modules: no layer has `qproj`; this model has q_proj, k_proj, v_proj, o_proj, "
            "gate_proj, up_proj, down_proj, did you mean `q_proj`?");
  EXPECT_NE(refused({.type = "lora", .target_modules = {}}).find("names no projection"), std::string::npos);
  EXPECT_NE(refused({.type = "lora", .target_modules = {"lm_head"}}).find("no layer has `lm_head`"),
            std::string::npos);
  const std::string unknown = refused({.type = "lora", .modules_to_save = {"embedding"}});
  EXPECT_NE(unknown.find("adapter.modules_to_save: no parameter's name has `embedding` in it"),
            std::string::npos)
      << unknown;
  EXPECT_NE(unknown.find("embed_tokens, "), std::string::npos) << unknown;
  EXPECT_NE(refused({.type = "lora", .modules_to_save = {""}}).find("has ``"), std::string::npos);
  EXPECT_NE(refused({.type = "lora", .modules_to_save = {"self_attn"}}).find("would train whole"),
            std::string::npos);
}

TEST(Adapters, KeysAreStrict) {
  const auto parse = [](const std::string& toml) {
    AdapterConfig config;
    ConfigDocument::from_text(toml, "x").read(fields_of(config));
    return config;
  };
  EXPECT_EQ(parse("type = \"lora\"\ntarget_modules = [\"q_proj\"]\n").target_modules.size(), 1u);
  EXPECT_EQ(parse("r = 4\nlora_alpha = 3\n").r, 4);
  for (const char* wrong : {"r = 0", "lora_alpha = 0", "lora_dropout = 1.0", "lora_dropout = -0.1",
                            "type = \"dora\"", "rank = 4", "target_modules = 1", "r = 1.5"})
    EXPECT_THROW(parse(wrong), ConfigError) << wrong;
}

}  // namespace
}  // namespace longreach
