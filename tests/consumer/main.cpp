// A user's own program: a torch module that holds one lightning attention layer of the installed package
// learns that each sequence draws on two tokens of its own. The current token alone tells too little for
// that: a model that knows the two reaches log 2 = 0.69, one that does not stays at log 16 = 2.77. Exit code
// 0 when the mean loss of the last steps is less than half of the first: the package's forward and backward
// are usable, and no more than that (that they are exact, the project's own tests show).
// A step is at most kRate kMaxNorm long: lightning has no normaliser over keys, so loss and gradient grow
// without limit with the weights, and unbounded steps of this size end in either place by the last bit of a
// sum, with the plain formula in float64 as well (one seed of five).
#include <ATen/Context.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "layers/attention/attention.h"
#include "layers/attention/mechanisms.h"

constexpr int64_t kTokens = 16, kWidth = 64, kLength = 64, kBatch = 16, kSkip = 8, kSteps = 600, kLast = 50;
constexpr double kRate = 0.5, kMaxNorm = 0.25;

struct Guesser : torch::nn::Module {
  Guesser() {
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

// One step of gradient descent with the gradient cut to kMaxNorm.
void descend(Guesser& model) {
  double squares = 0;
  for (const at::Tensor& parameter : model.parameters())
    squares += parameter.grad().square().sum().item<double>();
  const double rate = kRate * std::min(1.0, kMaxNorm / std::sqrt(squares));
  for (at::Tensor& parameter : model.parameters()) parameter.data().sub_(parameter.grad(), rate);
}

int main() {
  at::manual_seed(1);
  Guesser model;
  double first = 0, last = 0;
  for (int64_t step = 0; step < kSteps; ++step) {
    const at::Tensor own = at::randint(kTokens, {kBatch, 2}, at::kLong);
    const at::Tensor tokens = own.gather(1, at::randint(2, {kBatch, kLength}, at::kLong));
    const at::Tensor logits = model.logits(tokens).slice(1, kSkip, kLength - 1).flatten(0, 1);
    const at::Tensor loss = at::cross_entropy_loss(logits, tokens.slice(1, kSkip + 1).flatten());
    model.zero_grad();
    loss.backward();
    descend(model);
    if (step == 0) first = loss.item<double>();
    if (step >= kSteps - kLast) last += loss.item<double>() / kLast;
  }
  std::printf("loss %.3f -> %.3f\n", first, last);
  return last < first / 2 ? 0 : 1;
}
