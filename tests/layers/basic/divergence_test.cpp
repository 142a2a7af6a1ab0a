// Chunked Kullback-Leibler divergence against the formula, differentiated by the tape.
#include "layers/basic/divergence.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;

constexpr int64_t kTokens = 19, kWidth = 12, kTeacherWidth = 7, kVocab = 23;

at::Tensor formula(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& teacher_hidden,
                   const at::Tensor& teacher_weight, double temperature) {
  const at::Tensor own = at::log_softmax(hidden.matmul(weight.t()) / temperature, 1),
                   wanted = at::log_softmax(teacher_hidden.matmul(teacher_weight.t()) / temperature, 1);
  return (wanted.exp() * (wanted - own)).sum() * temperature * temperature;
}

struct Result {
  at::Tensor loss, dhidden, dweight;
};

template <class F>
Result run(at::ScalarType dtype, const F& f) {
  const at::Tensor hidden = normal({kTokens, kWidth}, 1).to(dtype).requires_grad_(true),
                   weight = normal({kVocab, kWidth}, 2).to(dtype).requires_grad_(true);
  const at::Tensor loss = f(hidden, weight, normal({kTokens, kTeacherWidth}, 3).to(dtype),
                            normal({kVocab, kTeacherWidth}, 4).to(dtype));
  (loss * 0.37).backward();
  return {loss.detach(), hidden.grad(), weight.grad()};
}

TEST(Divergence, ChunksAreTheFormula) {
  for (const double temperature : {1.0, 2.5}) {
    const Result expected =
        run(at::kDouble, [&](const auto&... all) { return formula(all..., temperature); });
    for (const int64_t chunk : {1, 5, 18, 1000})
      for (const auto& [dtype, tolerance] : {std::pair(at::kDouble, 1e-13), {at::kFloat, 2e-6}}) {
        const Result found = run(dtype, [&](const auto&... all) {
          return chunked_divergence(all..., {.temperature = temperature, .chunk_tokens = chunk});
        });
        EXPECT_LE(relative_error(found.loss, expected.loss), tolerance);
        EXPECT_LE(relative_error(found.dhidden, expected.dhidden), tolerance);
        EXPECT_LE(relative_error(found.dweight, expected.dweight), tolerance);
      }
  }
}

TEST(Divergence, OfTheSameModelIsNothing) {
  const at::Tensor hidden = normal({kTokens, kWidth}, 1).requires_grad_(true),
                   weight = normal({kVocab, kWidth}, 2);
  const at::Tensor loss = chunked_divergence(hidden, weight, hidden, weight);
  loss.backward();
  EXPECT_NEAR(loss.item<double>(), 0, 1e-14);
  EXPECT_LE(hidden.grad().abs().max().item<double>(), 1e-14);
}

TEST(Divergence, OfNoTokensIsNothing) {
  const at::Tensor hidden = normal({0, kWidth}, 1).requires_grad_(true);
  const at::Tensor loss = chunked_divergence(
      hidden, normal({kVocab, kWidth}, 2), normal({0, kTeacherWidth}, 3), normal({kVocab, kTeacherWidth}, 4));
  loss.backward();
  EXPECT_EQ(loss.item<double>(), 0);
}

TEST(Divergence, OtherVocabulariesAndTemperaturesAreRefused) {
  const at::Tensor hidden = normal({kTokens, kWidth}, 1), weight = normal({kVocab, kWidth}, 2);
  EXPECT_THROW(chunked_divergence(hidden, weight, hidden, normal({kVocab + 1, kWidth}, 2)), ShapeError);
  EXPECT_THROW(chunked_divergence(hidden, weight, normal({kTokens + 1, kWidth}, 1), weight), ShapeError);
  EXPECT_THROW(chunked_divergence(hidden, weight, hidden, weight, {.temperature = 0}), ConfigError);
  EXPECT_THROW(chunked_divergence(hidden, weight, hidden, weight, {.chunk_tokens = 0}), ConfigError);
}

}  // namespace
}  // namespace longreach
