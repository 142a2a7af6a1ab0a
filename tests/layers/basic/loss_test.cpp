// Chunked cross-entropy against the formula: values, gradients, ignored labels, z-loss, odd chunks.
#include "layers/basic/loss.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;

constexpr int64_t kTokens = 37, kWidth = 12, kVocab = 23;

at::Tensor some_labels() {
  at::Tensor labels = (at::arange(kTokens, at::kLong) * 7).remainder(kVocab);
  for (const int64_t ignored : {0, 5, 6, 36}) labels[ignored] = kIgnoredLabel;
  return labels;
}

struct Result {
  at::Tensor loss, nll, dhidden, dweight;
};

template <class F>
Result run(const F& f, at::ScalarType dtype, const at::Tensor& labels, const CrossEntropyOptions& options) {
  const at::Tensor hidden = normal({kTokens, kWidth}, 1).to(dtype).requires_grad_(true);
  const at::Tensor weight =
      normal({kVocab, kWidth}, 2).to(dtype == at::kBFloat16 ? at::kFloat : dtype).requires_grad_(true);
  const CrossEntropyOutput out = f(hidden, weight, labels, options);
  (out.loss_sum * 0.37).backward();
  return {out.loss_sum.detach(), out.nll, hidden.grad(), weight.grad()};
}

void expect_close(const Result& a, const Result& b, double tolerance) {
  EXPECT_LE(relative_error(a.loss, b.loss), tolerance);
  EXPECT_LE(relative_error(a.nll, b.nll), tolerance);
  EXPECT_LE(relative_error(a.dhidden, b.dhidden), tolerance);
  EXPECT_LE(relative_error(a.dweight, b.dweight), tolerance);
}

TEST(CrossEntropy, ChunksAreTheFormula) {
  for (const double z_loss : {0.0, 0.1}) {
    const Result expected = run(cross_entropy_reference, at::kDouble, some_labels(), {.z_loss = z_loss});
    for (const int64_t chunk : {1, 5, 33, 1000}) {
      const CrossEntropyOptions options{.z_loss = z_loss, .chunk_tokens = chunk};
      expect_close(run(chunked_cross_entropy, at::kDouble, some_labels(), options), expected, 1e-13);
      expect_close(run(chunked_cross_entropy, at::kFloat, some_labels(), options), expected, 2e-6);
      expect_close(run(chunked_cross_entropy, at::kBFloat16, some_labels(), options), expected, 2e-2);
    }
  }
}

TEST(CrossEntropy, GradientsAreCentralDifferences) {
  const auto f = [](const std::vector<at::Tensor>& in) {
    return chunked_cross_entropy(in[0], in[1], some_labels(), {.z_loss = 0.05, .chunk_tokens = 10}).loss_sum;
  };
  EXPECT_LE(gradient_error(f, {normal({kTokens, kWidth}, 1), normal({kVocab, kWidth}, 2)}), 1e-6);
}

TEST(CrossEntropy, WeightGradientsSumInFloat32AcrossChunks) {
  // A chunk's gradient is rounded to bfloat16, 8 bits: float32 holds the sum of 512 equal ones exactly, where
  // bfloat16 stands still at 256 of them.
  constexpr int64_t kCopies = 512;
  const auto gradient = [](int64_t copies) {
    const at::Tensor hidden = normal({1, kWidth}, 1).expand({copies, kWidth}).to(at::kBFloat16),
                     weight = normal({kVocab, kWidth}, 2).to(at::kFloat).requires_grad_(true);
    chunked_cross_entropy(hidden, weight, at::full({copies}, 3, at::kLong), {.chunk_tokens = 1})
        .loss_sum.backward();
    return weight.grad();
  };
  const at::Tensor one = gradient(1);
  EXPECT_EQ(one.scalar_type(), at::kFloat);
  EXPECT_GT(one.abs().max().item<double>(), 0.0);
  EXPECT_TRUE(gradient(kCopies).equal(one * kCopies));
}

TEST(CrossEntropy, UniformLogitsCostTheLogarithmOfTheVocabulary) {
  const at::Tensor hidden = normal({4, kWidth}, 1), weight = normal({kVocab, kWidth}, 2).mul_(0.0);
  const auto out = chunked_cross_entropy(hidden, weight, at::arange(4, at::kLong));
  EXPECT_NEAR(out.loss_sum.item<double>(), 4 * std::log(static_cast<double>(kVocab)), 1e-12);
  EXPECT_EQ(out.tokens, 4);
}

TEST(CrossEntropy, CountsLabelsAndGivesZeroWhereThereIsNone) {
  const at::Tensor hidden = normal({kTokens, kWidth}, 1), weight = normal({kVocab, kWidth}, 2);
  const auto out = chunked_cross_entropy(hidden, weight, some_labels());
  EXPECT_EQ(out.tokens, kTokens - 4);
  EXPECT_EQ(out.nll[5].item<double>(), 0.0);
  EXPECT_FALSE(out.nll.requires_grad());
  const Result none =
      run(chunked_cross_entropy, at::kDouble, at::full({kTokens}, kIgnoredLabel, at::kLong), {});
  EXPECT_EQ(none.loss.item<double>(), 0.0);
  EXPECT_EQ(none.dhidden.abs().sum().item<double>() + none.dweight.abs().sum().item<double>(), 0.0);
}

TEST(CrossEntropy, SurvivesLargeLogits) {
  // Logits of some 10^5, far apart: softmax is one or nothing, and what is left is the rounding of the
  // logits.
  const auto result = [](auto f, at::ScalarType dtype) {
    const at::Tensor hidden = (normal({8, kWidth}, 1, at::kFloat) * 1e4).to(dtype).requires_grad_(true),
                     weight = normal({kVocab, kWidth}, 2, at::kFloat).to(dtype).requires_grad_(true);
    const CrossEntropyOutput out =
        f(hidden, weight, at::arange(8, at::kLong), CrossEntropyOptions{.chunk_tokens = 3});
    out.loss_sum.backward();
    return Result{out.loss_sum.detach(), out.nll, hidden.grad(), weight.grad()};
  };
  const Result exact = result(cross_entropy_reference, at::kDouble);
  EXPECT_GT(exact.loss.item<double>(), 1e4);
  expect_close(result(chunked_cross_entropy, at::kFloat), exact, 1e-6);
}

TEST(CrossEntropy, RefusesLabelsOutsideTheVocabulary) {
  const at::Tensor hidden = normal({2, kWidth}, 1), weight = normal({kVocab, kWidth}, 2);
  EXPECT_THROW(chunked_cross_entropy(hidden, weight, at::full({2}, kVocab, at::kLong)), DataError);
  EXPECT_THROW(chunked_cross_entropy(hidden, weight, at::full({2}, -1, at::kLong)), DataError);
  EXPECT_THROW(chunked_cross_entropy(hidden, weight, at::full({3}, 1, at::kLong)), ShapeError);
}

}  // namespace
}  // namespace longreach
