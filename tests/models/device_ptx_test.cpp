// A whole model on the device's path, loss and every gradient, each kernel interpreted: the same numbers as
// on the CPU, and no part of a layer left to another path.
#include <algorithm>

#include "tests/models/device_model.h"
#include "tests/support/small_config.h"

namespace longreach {
namespace {

using namespace test;

ModelConfig two_mechanisms() {
  return device_model({{.layers = "0", .config = DenseConfig{}},
                       {.layers = "1", .config = SlidingConfig{.window = 20, .sinks = 1}}});
}

// cos and sin are gathered once a pass; each of the two layers turns q and k.
TEST(ModelOnTheDevicesPath, Float32) {
  const auto runs = expect_the_same(
      two_mechanisms(), {}, 1e-4,
      {"rms_norm_fp32_fp32", "rms_norm_grad_fp32_fp32", "silu_product_fp32", "silu_product_grad_fp32",
       "cross_entropy_fp32", "interval_attention_forward_fp32_64_64",
       "interval_attention_query_gradient_fp32_64_64"});
  EXPECT_EQ(runs.at("rotary_halves_fp32"), 8);
}

TEST(ModelOnTheDevicesPath, BFloat16) {
  const auto runs = expect_the_same(two_mechanisms(), {.autocast_bf16 = true}, 5e-2,
                                    {"rms_norm_fp32_bf16", "rms_norm_grad_fp32_bf16", "silu_product_bf16",
                                     "cross_entropy_bf16", "interval_attention_forward_bf16_32_32"});
  EXPECT_EQ(runs.at("rotary_halves_bf16"), 8);
}

// What a mechanism chooses from scores in float32, rounding may choose otherwise in bfloat16.
bool chooses_from_scores(const AttentionConfig& config) {
  return std::visit(
      [](const auto& kind) {
        return requires { kind.chooses_from_scores; };
      },
      config);
}

using Runs = std::map<std::string, int>;

// Whether kernels of attention ran, forward and backward: a layer may not be left to another path.
void expect_attention_in(const Runs& runs) {
  const auto ran = [&](bool gradient) {
    return std::any_of(runs.begin(), runs.end(), [&](const Runs::value_type& run) {
      const std::string& kernel = run.first;
      return (kernel.find("_attention_") != std::string::npos || kernel.starts_with("recurrence_")) &&
             (kernel.find("_grad") != std::string::npos) == gradient;
    });
  };
  EXPECT_TRUE(ran(false)) << "no kernel of attention forward";
  EXPECT_TRUE(ran(true)) << "no kernel of attention backward";
}

class EveryMechanism : public testing::TestWithParam<std::string> {};

TEST_P(EveryMechanism, IsTheSameOnTheDevicesPath) {
  const AttentionConfig mechanism = small_config(make_attention_config(GetParam()));
  const ModelConfig config = device_model({{.layers = "0", .config = mechanism}});
  expect_attention_in(expect_the_same(config, {}, 1e-4, {}));
  if (!chooses_from_scores(mechanism))
    expect_attention_in(expect_the_same(config, {.autocast_bf16 = true}, 5e-2, {}));
}

INSTANTIATE_TEST_SUITE_P(Kinds, EveryMechanism, testing::ValuesIn(attention_kinds()),
                         [](const auto& kind) { return kind.param; });

}  // namespace
}  // namespace longreach
