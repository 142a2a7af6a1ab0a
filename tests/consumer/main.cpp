// A user's own program: a torch module that holds one lightning attention layer of the installed package
// learns to say a token again 8 places later, with a plain gradient step. Exit code 0 when the loss has
// fallen to less than a third.
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <torch/nn/module.h>

#include <cstdio>

#include "layers/attention.h"
#include "layers/lightning/lightning.h"

constexpr int64_t kTokens = 16, kWidth = 64, kLength = 64, kBatch = 8, kDelay = 8, kSteps = 150;
constexpr double kRate = 0.5;

struct Copier : torch::nn::Module {
  Copier() {
    longreach::LayerSite site{.hidden_size = kWidth, .num_heads = 2, .num_kv_heads = 2, .head_dim = 32};
    embedding = register_parameter("embedding", at::randn({kTokens, kWidth}));
    head = register_parameter("head", at::randn({kTokens, kWidth}) * 0.02);
    attention = register_module("attention", longreach::make_attention(longreach::LightningConfig{}, site));
  }
  at::Tensor logits(const at::Tensor& tokens) {
    const at::Tensor positions = at::arange(kLength).expand({kBatch, kLength});
    const at::Tensor x = at::embedding(embedding, tokens);
    return at::linear(x + attention->forward(x, {.positions = positions}).y, head);
  }
  at::Tensor embedding, head;
  std::shared_ptr<longreach::Attention> attention;
};

int main() {
  Copier model;
  double first = 0, last = 0;
  for (int64_t step = 0; step < kSteps; ++step) {
    const at::Tensor tokens = at::randint(kTokens, {kBatch, kLength}, at::kLong);
    const at::Tensor logits = model.logits(tokens).slice(1, kDelay).flatten(0, 1);
    const at::Tensor loss = at::cross_entropy_loss(logits, tokens.slice(1, 0, kLength - kDelay).flatten());
    model.zero_grad();
    loss.backward();
    for (at::Tensor& parameter : model.parameters()) parameter.data().sub_(parameter.grad(), kRate);
    last = loss.item<double>();
    if (step == 0) first = last;
  }
  std::printf("loss %.3f -> %.3f\n", first, last);
  return last < first / 3 ? 0 : 1;
}
