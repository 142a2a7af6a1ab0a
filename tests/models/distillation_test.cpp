// What a student learns of a teacher, against the same said with whole tensors.
#include "models/distillation.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/log_softmax.h>
#include <gtest/gtest.h>

#include <map>

#include "core/error.h"
#include "layers/basic/loss.h"
#include "tests/support/random_tensors.h"
#include "tests/support/small_model.h"

namespace longreach {
namespace {

using namespace test;

constexpr int64_t kVocab = 50, kRows = 2, kTokens = 21;

ModelConfig resolved(std::vector<AttentionEntry> attention, int64_t layers = 3) {
  ModelConfig config = small_model();
  config.num_hidden_layers = layers;
  config.attention = std::move(attention);
  config.implementation = Implementation::reference;  // in float64
  config.resolve(kVocab);
  return config;
}

ModelConfig of_teacher() { return resolved({{.layers = "all", .config = DenseConfig{}}}); }
ModelConfig of_student() {
  return resolved(
      {{.layers = "0-1", .config = SlidingConfig{.window = 5}}, {.layers = "2", .config = DenseConfig{}}});
}

class Distillation : public testing::Test {
 protected:
  Distillation() {
    teacher.to(at::kDouble);
    student.to(at::kDouble);
    labels[0].narrow(0, 3, 4).fill_(kIgnoredLabel);
  }
  DistillationLosses losses(const DistillationWeights& weights, const LossOptions& options = {}) {
    return distillation_losses(student, teacher, tokens, labels, batch, options, weights);
  }
  std::map<std::string, at::Tensor> gradients(const at::Tensor& loss) {
    student.zero_grad();
    loss.backward();
    std::map<std::string, at::Tensor> found;
    for (const auto& item : student.named_parameters())
      if (item.value().grad().defined() && item.value().grad().abs().max().item<double>() > 0)
        found[item.key()] = item.value().grad().clone();
    return found;
  }

  Transformer teacher{of_teacher(), 1}, student{of_student(), 2};
  const at::Tensor tokens = (normal({kRows, kTokens}, 11).mul(1e4).to(at::kLong)).remainder(kVocab);
  at::Tensor labels = tokens.roll(-1, 1).clone();
  const Batch batch = whole_rows(kRows, kTokens);
};

// Of the layer alone: what it learns does not depend on the student's other layers, and moves nothing else.
TEST_F(Distillation, AttentionLearnsLayerByLayer) {
  const at::Tensor loss = losses({.attention = 1}).attention;
  at::Tensor expected = at::zeros({}, at::kDouble), x = teacher.embedded(tokens).detach();
  for (size_t i = 0; i < 3; ++i) {
    const at::NoGradGuard no_grad;
    const at::Tensor wanted = teacher.attention(i, x, batch);
    expected = expected + (student.attention(i, x, batch) - wanted).square().sum() / 32;
    x = teacher.layer(i, x, batch);
  }
  EXPECT_LE(relative_error(loss.detach(), expected), 1e-14);
  EXPECT_GT(expected.item<double>(), 0.1);
  const auto found = gradients(loss);
  for (const auto& [name, gradient] : found)
    EXPECT_TRUE(name.find("self_attn") != std::string::npos ||
                name.find("input_layernorm") != std::string::npos)
        << name;
  EXPECT_EQ(found.size(), 3u * 5);
  {
    const at::NoGradGuard no_grad;
    student.named_parameters()["model.layers.0.self_attn.q_proj.weight"].mul_(3);
    student.named_parameters()["model.layers.0.mlp.up_proj.weight"].mul_(3);
  }
  const auto after = gradients(losses({.attention = 1}).attention);
  for (const auto& [name, gradient] : found)
    EXPECT_EQ(at::equal(gradient, after.at(name)), name.find("layers.0.") == std::string::npos) << name;
}

TEST_F(Distillation, StreamsAreComparedTokenByToken) {
  const at::Tensor loss = losses({.hidden = 1}).hidden;
  at::Tensor expected = at::zeros({}, at::kDouble);
  at::Tensor own = student.embedded(tokens), theirs = teacher.embedded(tokens);
  for (size_t i = 0; i < 3; ++i) {
    own = student.layer(i, own, batch);
    theirs = teacher.layer(i, theirs, batch).detach();
    expected = expected + ((own - theirs).square().sum(-1) / theirs.square().sum(-1)).sum();
  }
  EXPECT_LE(relative_error(loss.detach(), expected.detach()), 1e-12);
  const auto found = gradients(loss), wanted = gradients(expected);
  ASSERT_EQ(found.size(), wanted.size());
  for (const auto& [name, gradient] : wanted)
    EXPECT_LE(relative_error(found.at(name), gradient), 1e-11) << name;
}

TEST_F(Distillation, DistributionsCountWhereALabelIs) {
  const at::Tensor loss = losses({.logits = 1, .temperature = 2}, {.chunk_tokens = 5}).logits;
  const at::Tensor own = at::log_softmax(student.logits(tokens, batch) / 2, -1),
                   wanted = at::log_softmax(teacher.logits(tokens, batch) / 2, -1).detach();
  const at::Tensor expected = ((wanted.exp() * (wanted - own)).sum(-1) * labels.ne(kIgnoredLabel)).sum() * 4;
  EXPECT_LE(relative_error(loss.detach(), expected.detach()), 1e-12);
  const auto found = gradients(loss), without = gradients(expected);
  ASSERT_EQ(found.size(), without.size());
  for (const auto& [name, gradient] : without)
    EXPECT_LE(relative_error(found.at(name), gradient), 1e-11) << name;
}

// A teacher of another depth and width teaches distributions.
TEST_F(Distillation, ADeeperTeacherTeachesDistributionsAlone) {
  ModelConfig config = resolved({}, 5);
  Transformer deep(config, 3);
  deep.to(at::kDouble);
  EXPECT_NO_THROW(expect_teacher(student.config(), config, {.logits = 1}));
  EXPECT_THROW(expect_teacher(student.config(), config, {.attention = 1}), ConfigError);
  EXPECT_THROW(expect_teacher(student.config(), config, {.hidden = 1, .logits = 1}), ConfigError);
  const at::Tensor loss = distillation_losses(student, deep, tokens, labels, batch, {}, {.logits = 1}).logits;
  const at::Tensor own = at::log_softmax(student.logits(tokens, batch), -1),
                   wanted = at::log_softmax(deep.logits(tokens, batch), -1);
  EXPECT_LE(
      relative_error(loss.detach(),
                     ((wanted.exp() * (wanted - own)).sum(-1) * labels.ne(kIgnoredLabel)).sum().detach()),
      1e-12);
}

TEST_F(Distillation, OfItselfThereIsNothingToLearn) {
  const DistillationLosses none = distillation_losses(teacher, teacher, tokens, labels, batch, {},
                                                      {.attention = 1, .hidden = 1, .logits = 1});
  EXPECT_EQ(none.attention.item<double>(), 0);
  EXPECT_EQ(none.hidden.item<double>(), 0);
  EXPECT_NEAR(none.logits.item<double>(), 0, 1e-12);
}

// Sums: however a step is cut, and whether layers are recomputed or not.
TEST_F(Distillation, SumsOverRowsAndRecomputedLayersAreTheSame) {
  const DistillationWeights all{.attention = 1, .hidden = 1, .logits = 1};
  const auto total = [](const DistillationLosses& losses) {
    return losses.attention + losses.hidden + losses.logits;
  };
  const auto whole = gradients(total(losses(all)));
  const auto recomputed = gradients(total(losses(all, {.activation_checkpoint = "full"})));
  at::Tensor sum;
  for (int64_t row = 0; row < kRows; ++row) {
    const at::Tensor part =
        total(distillation_losses(student, teacher, tokens.narrow(0, row, 1), labels.narrow(0, row, 1),
                                  whole_rows(1, kTokens), {}, all));
    sum = sum.defined() ? sum + part : part;
  }
  const auto cut = gradients(sum);
  for (const auto& [name, gradient] : whole) {
    EXPECT_LE(relative_error(cut.at(name), gradient), 1e-12) << name;
    EXPECT_TRUE(at::equal(recomputed.at(name), gradient)) << name;
  }
}

TEST_F(Distillation, AMixtureTakesEachLayerFromOneOfBoth) {
  const auto mixed = [&](const std::vector<bool>& own) {
    return mixed_token_nll(student, teacher, own, tokens, labels, batch, {});
  };
  EXPECT_TRUE(at::equal(mixed({false, false, false}), teacher.token_nll(tokens, labels, batch)));
  const at::NoGradGuard no_grad;
  at::Tensor x = teacher.embedded(tokens);
  x = teacher.layer(0, x, batch);
  x = student.layer(1, x, batch);
  x = teacher.layer(2, x, batch);
  const at::Tensor nll = -at::log_softmax(teacher.final_hidden(x).matmul(teacher.output_weight().t()), -1)
                              .gather(-1, labels.clamp_min(0).unsqueeze(-1))
                              .squeeze(-1) *
                         labels.ne(kIgnoredLabel);
  EXPECT_LE(relative_error(mixed({false, true, false}), nll), 1e-12);
}

}  // namespace
}  // namespace longreach
