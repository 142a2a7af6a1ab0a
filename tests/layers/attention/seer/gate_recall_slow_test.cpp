// Whether a gate learns where attention goes: distilled from a synthetic frozen attention, it must find the
// blocks that hold the mass. Each block of queries asks for the topic of an earlier block; only 2 of that
// block's 32 keys carry it, and keys are free of their block's mean, so that average pooling sees nothing.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>

#include "layers/attention/seer/gate.h"

namespace longreach {
namespace {

constexpr int64_t kTokens = 512, kDim = 32, kHeads = 2, kBlock = 32, kBlocks = kTokens / kBlock, kTopics = 64;

class Task {
 public:
  Task() : random_(at::detail::createCPUGenerator(1)) {
    topics_ = at::randn({kTopics, kDim}, random_, at::kFloat) * (4.0 / std::sqrt(static_cast<double>(kDim)));
    for (int64_t h = 0; h < kHeads; ++h)
      turns_.push_back(std::get<0>(at::linalg_qr(at::randn({kDim, kDim}, random_, at::kFloat))));
  }

  struct Sample {
    at::Tensor q, k;  // [B, T, H, D]
  };
  Sample draw(int64_t batch) {
    at::Tensor q = at::randn({batch, kTokens, kHeads, kDim}, random_, at::kFloat) * 0.5,
               k = at::randn({batch, kTokens, kHeads, kDim}, random_, at::kFloat) * 0.5;
    const at::Tensor offered = at::randint(kTopics, {batch, kBlocks}, random_, at::kLong);
    const at::Tensor earlier =
        (at::rand({batch, kBlocks}, random_, at::kFloat) * (at::arange(kBlocks, at::kFloat) + 1))
            .to(at::kLong);
    const at::Tensor asked = offered.gather(1, earlier);
    for (int64_t h = 0; h < kHeads; ++h) {
      q.select(2, h).add_(topic(asked, h).repeat_interleave(kBlock, 1));
      const at::Tensor carriers =
          at::zeros({batch, kBlocks, kBlock}, at::kFloat)
              .scatter(2, at::randint(kBlock, {batch, kBlocks, 2}, random_, at::kLong), 1.0);
      const at::Tensor shown =
          (carriers - carriers.mean(-1, true)).unsqueeze(-1) * topic(offered, h).unsqueeze(2);
      k.select(2, h).add_(shown.reshape({batch, kTokens, kDim}), 1.5);
    }
    return {q, k};
  }
  at::Tensor noise(int64_t batch) { return at::rand({batch, kHeads, kBlocks, kBlocks}, random_, at::kFloat); }

 private:
  at::Tensor topic(const at::Tensor& which, int64_t head) const {
    return topics_.index_select(0, which.flatten()).view({which.size(0), kBlocks, kDim}).matmul(turns_[head]);
  }
  at::Generator random_;
  at::Tensor topics_;
  std::vector<at::Tensor> turns_;
};

at::Tensor causal(const at::Tensor& scores) {
  return scores.masked_fill(at::ones({kBlocks, kBlocks}, at::kBool).triu(1), -1e30);
}

// The share of attention in the three best blocks by `scores`, rows past the first quarter, over the most
// possible.
double recall(const at::Tensor& scores, const Task::Sample& sample) {
  const at::Tensor q = sample.q.transpose(1, 2), k = sample.k.transpose(1, 2);
  const at::Tensor p = (q.matmul(k.transpose(2, 3)) / std::sqrt(static_cast<double>(kDim)))
                           .masked_fill(at::ones({kTokens, kTokens}, at::kBool).triu(1), -1e30)
                           .softmax(-1);
  const at::Tensor mass = p.unflatten(2, {kBlocks, kBlock}).unflatten(4, {kBlocks, kBlock}).sum(-1).mean(3);
  const auto best = [&](const at::Tensor& ranking) {
    const at::Tensor chosen = std::get<1>(ranking.topk(3, -1));
    return mass.gather(3, chosen).sum(-1).narrow(2, kBlocks / 4, kBlocks - kBlocks / 4).mean().item<double>();
  };
  return best(scores) / best(mass);
}

// Adam at learning rate 3e-3 for one tensor.
class Adam {
 public:
  explicit Adam(const at::Tensor& parameter)
      : parameter_(parameter),
        mean_(at::zeros(parameter.sizes(), at::kFloat)),
        square_(at::zeros(parameter.sizes(), at::kFloat)) {}
  void step() {
    const at::NoGradGuard no_grad;
    const at::Tensor g = parameter_.grad();
    ++steps_;
    mean_.mul_(0.9).add_(g, 0.1);
    square_.mul_(0.999).addcmul_(g, g, 0.001);
    const double first = 1 - std::pow(0.9, steps_), second = 1 - std::pow(0.999, steps_);
    parameter_.detach().sub_((mean_ / first) / ((square_ / second).sqrt() + 1e-8), 3e-3);
    parameter_.mutable_grad() = at::Tensor();
  }

 private:
  at::Tensor parameter_, mean_, square_;
  double steps_ = 0;
};

TEST(SeerGateRecall, TheGateFindsWhatPoolingCannotSee) {
  const SeerGateForm form = seer_gate_form({.form = "prefill", .block_size = kBlock, .gate_hidden = kDim},
                                           {.num_heads = kHeads, .num_kv_heads = kHeads, .head_dim = kDim});
  const SeerPlaces places{.tokens = kTokens, .length = kTokens};
  RotaryEmbedding rotary({}, kDim, kTokens);
  Task task;
  const SeerGateWeights weights{
      .k = (at::randn(form.k_shape(), at::detail::createCPUGenerator(2), at::kFloat) * 0.02)
               .requires_grad_(true)};
  const auto queries = [&](const at::Tensor& q) {
    return seer_gate_queries(form, weights, q, &rotary, {}, places, Implementation::fused);
  };
  const auto keys = [&](const at::Tensor& k) {
    return seer_gate_keys(form, weights, k, &rotary, places, Implementation::fused);
  };
  const Task::Sample held_out = task.draw(8);
  const auto gate_recall = [&] {
    const at::NoGradGuard no_grad;
    return recall(seer_gate_logits(form, queries(held_out.q), keys(held_out.k), places), held_out);
  };
  const auto mean = [](const at::Tensor& x) {
    return x.unflatten(1, {kBlocks, kBlock}).mean(2).transpose(1, 2);
  };
  const double random = recall(causal(task.noise(8)), held_out),
               pooled = recall(causal(mean(held_out.q).matmul(mean(held_out.k).transpose(2, 3))), held_out),
               untrained = gate_recall();
  EXPECT_LE(random, 0.70);
  EXPECT_LE(pooled, 0.70);
  EXPECT_LE(untrained, 0.70);

  const at::Tensor all = seer_all_blocks(form, places);
  Adam optimizer(weights.k);
  double reached = 0;
  int64_t step = 0;
  while (reached < 0.92 && step < 300) {
    const Task::Sample sample = task.draw(4);
    const SeerAttended attended =
        seer_attend(form, sample.q, sample.k, sample.k, all, places, true, Implementation::fused);
    const at::Tensor target = seer_gate_target(form, attended.block_max, all, places);
    (seer_gate_loss(form, queries(sample.q), keys(sample.k), target, all, places, 0) * 10).backward();
    optimizer.step();
    if (++step % 50 == 0) reached = gate_recall();
  }
  std::cout << "recall of the oracle's mass: gate " << reached << " after " << step << " steps, untrained "
            << untrained << ", average pooling " << pooled << ", random " << random << "\n";
  EXPECT_GE(reached, 0.90);
}

}  // namespace
}  // namespace longreach
