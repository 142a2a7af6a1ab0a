// merge_attention against its float64 reference, and the reference against central differences; empty parts,
// poison.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "core/error.h"
#include "layers/ops/merge/merge.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {
namespace {

constexpr float kEmpty = -std::numeric_limits<float>::infinity();
using Parts = std::vector<IntervalAttentionOutput>;

// Three parts of B2 T5 H3 D7: some rows are empty in one, in two, in all; a logarithm of 300 must not
// overflow.
Parts draw(at::ScalarType dtype) {
  Parts parts;
  for (uint64_t i = 0; i < 3; ++i)
    parts.push_back({normal({2, 5, 3, 7}, i, dtype), normal({2, 3, 5}, 10 + i, at::kFloat)});
  parts[0].lse.select(2, 0).fill_(kEmpty);
  parts[1].lse.select(2, 1).fill_(kEmpty), parts[2].lse.select(2, 1).fill_(kEmpty);
  for (auto& part : parts) part.lse.select(2, 2).fill_(kEmpty);
  parts[1].lse.select(2, 3).fill_(300.0f), parts[2].lse.select(2, 4).fill_(-300.0f);
  return parts;
}

// o and lse, then the gradients of every part, for fixed gradients of the results.
std::vector<at::Tensor> run(const Parts& inputs, bool fused, bool exact) {
  Parts parts;
  std::vector<at::Tensor> wanted;
  for (const auto& [o, lse] : inputs) {
    parts.push_back({(exact ? o.to(at::kDouble) : o).detach().requires_grad_(true),
                     (exact ? lse.to(at::kDouble) : lse).detach().requires_grad_(true)});
    wanted.push_back(parts.back().o), wanted.push_back(parts.back().lse);
  }
  const auto [o, lse] = fused ? merge_attention(parts) : merge_attention_reference(parts);
  const auto grads =
      torch::autograd::grad({o, lse}, wanted,
                            {normal(o.sizes(), 20, inputs[0].o.scalar_type()).to(o.scalar_type()),
                             normal(lse.sizes(), 21, at::kFloat).to(lse.scalar_type())});
  std::vector<at::Tensor> results{o.detach(), lse.detach()};
  results.insert(results.end(), grads.begin(), grads.end());
  return results;
}

at::Tensor finite(const at::Tensor& x) { return x.masked_fill(x == kEmpty, 0); }

class Merge : public ::testing::Test {
 protected:
  void SetUp() override { at::globalContext().setDeterministicAlgorithms(true, false); }
  void TearDown() override { at::globalContext().setDeterministicAlgorithms(false, false); }
};

TEST_F(Merge, MatchesReference) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const Parts parts = draw(dtype);
    const auto exact = run(parts, false, true), plain = run(parts, false, false),
               fused = run(parts, true, false);
    for (size_t i = 0; i < exact.size(); ++i) {
      EXPECT_EQ(fused[i].scalar_type(), plain[i].scalar_type());
      EXPECT_TRUE((fused[i].to(at::kDouble) == kEmpty).equal(exact[i] == kEmpty)) << i;
      const double own = relative_error(finite(plain[i]), finite(exact[i])),
                   limit = dtype == at::kFloat ? 5e-6 : 1e-2;
      EXPECT_LE(relative_error(finite(fused[i]), finite(exact[i])), std::max(limit, 2 * own)) << i;
    }
    EXPECT_TRUE((fused[0].select(1, 2) == 0).all().item<bool>());
    EXPECT_TRUE((fused[1].select(2, 2) == kEmpty).all().item<bool>());
  }
}

TEST_F(Merge, ReferenceMatchesCentralDifferences) {
  Parts parts = draw(at::kFloat);
  for (auto& part : parts) part = {part.o.to(at::kDouble), part.lse.to(at::kDouble)};
  const auto value = [&] {
    const auto [o, lse] = merge_attention_reference(parts);
    return ((o * normal(o.sizes(), 20, at::kFloat).to(at::kDouble)).sum() +
            (finite(lse) * normal(lse.sizes(), 21, at::kFloat).to(at::kDouble)).sum())
        .item<double>();
  };
  const auto results = run(parts, false, true);
  constexpr double kStep = 1e-5;
  for (size_t i = 0; i < 6; ++i) {
    at::Tensor& x = i % 2 == 0 ? parts[i / 2].o : parts[i / 2].lse;
    const at::Tensor grad = results[2 + i].contiguous();
    double* data = x.mutable_data_ptr<double>();
    for (int64_t j = 0; j < x.numel(); ++j) {
      const double kept = data[j];
      if (kept == kEmpty) {
        EXPECT_EQ(grad.const_data_ptr<double>()[j], 0.0);
        continue;
      }
      data[j] = kept + kStep;
      const double above = value();
      data[j] = kept - kStep;
      const double below = value();
      data[j] = kept;
      EXPECT_NEAR(grad.const_data_ptr<double>()[j], (above - below) / (2 * kStep), 1e-6) << i << " " << j;
    }
  }
}

TEST_F(Merge, AnEmptyPartIsNeverRead) {
  Parts parts = draw(at::kFloat);
  const auto clean = run(parts, true, false);
  parts[0].o.select(1, 0).fill_(std::numeric_limits<float>::quiet_NaN());
  const auto poisoned = run(parts, true, false);
  for (size_t i = 0; i < clean.size(); ++i) EXPECT_TRUE(clean[i].equal(poisoned[i])) << i;
}

TEST_F(Merge, OnePartAndNoTokens) {
  const Parts one{{normal({1, 4, 2, 3}, 1, at::kFloat), normal({1, 2, 4}, 2, at::kFloat)}};
  const auto [o, lse] = merge_attention(one);
  EXPECT_LE(relative_error(o, one[0].o), 1e-6);
  EXPECT_LE(relative_error(lse, one[0].lse), 1e-6);
  const Parts none{{normal({1, 0, 2, 3}, 1, at::kFloat), normal({1, 2, 0}, 2, at::kFloat)}};
  EXPECT_EQ(merge_attention(none).o.numel(), 0);
}

TEST_F(Merge, RejectsWrongArguments) {
  EXPECT_THROW(merge_attention({}), ShapeError);
  Parts parts = draw(at::kFloat);
  parts[1].lse = parts[1].lse.transpose(1, 2);
  EXPECT_THROW(merge_attention(parts), ShapeError);
  parts[1] = {parts[0].o.to(at::kBFloat16), parts[0].lse};
  EXPECT_THROW(merge_attention(parts), DtypeError);
}

}  // namespace
}  // namespace longreach::test
