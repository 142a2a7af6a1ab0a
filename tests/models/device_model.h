// A whole model on the device's path, loss and every gradient, each kernel interpreted, against the same on
// the CPU.
#pragma once
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "models/transformer.h"
#include "tests/layers/ops/cuda/interpreted_device.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {

inline ModelConfig device_model(const std::vector<AttentionEntry>& attention) {
  ModelConfig config;
  config.hidden_size = 48;
  config.num_hidden_layers = static_cast<int64_t>(attention.size());
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.intermediate_size = 56;
  config.initializer_range = 0.2;
  config.qk_norm = true;
  config.head_dim = 16;
  config.attention = attention;
  config.resolve(50);
  return config;
}

struct Pass {
  double loss = 0;
  std::map<std::string, at::Tensor> gradients;
};

inline Pass train_once(Transformer& model, const LossOptions& options) {
  const at::Tensor tokens = (normal({2, 71}, 11).mul_(1e4).to(at::kLong)).remainder(50);
  const LossOutput out =
      model.loss(tokens.narrow(1, 0, 70), tokens.narrow(1, 1, 70).clone(), whole_rows(2, 70), options);
  (out.loss_sum / static_cast<double>(out.tokens)).backward();
  Pass pass{out.loss_sum.item<double>(), {}};
  for (const auto& item : model.named_parameters()) pass.gradients[item.key()] = item.value().grad();
  return pass;
}

// Returns how often each kernel ran.
inline std::map<std::string, int> expect_the_same(const ModelConfig& config, const LossOptions& options,
                                                  double limit, const std::vector<std::string>& kernels) {
  Transformer on_host(config, 5);
  const Pass wanted = train_once(on_host, options);
  InterpretedDevice device;
  Transformer on_device(config, 5);
  const Pass found = train_once(on_device, options);
  EXPECT_NEAR(found.loss, wanted.loss, limit * wanted.loss);
  EXPECT_EQ(found.gradients.size(), wanted.gradients.size());
  for (const auto& [name, gradient] : wanted.gradients) {
    const at::Tensor& own = found.gradients.at(name);
    EXPECT_EQ(own.defined(), gradient.defined()) << name;
    if (own.defined() && gradient.defined()) {
      EXPECT_LE(relative_error(own, gradient), limit) << name;
    }
  }
  for (const std::string& kernel : kernels)
    EXPECT_TRUE(device.runs().contains(kernel)) << kernel << " was not run";
  return device.runs();
}

}  // namespace longreach::test
