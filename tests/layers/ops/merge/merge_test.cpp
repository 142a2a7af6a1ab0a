// merge_attention against its float64 reference, and the reference against central differences; empty parts,
// poison.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <limits>

#include "core/error.h"
#include "tests/layers/ops/merge/cases.h"

namespace longreach::test {
namespace {

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

// A part that went wrong makes the whole wrong: dropped, it would hide that.
TEST_F(Merge, NanStaysWhateverStandsBesideIt) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const auto join : {merge_attention, merge_attention_reference}) {
    Parts parts = draw(at::kFloat);
    parts[0].lse.select(2, 1).fill_(kNan);  // the others are empty there
    parts[1].lse.select(2, 3).fill_(kNan);  // the others are not
    parts[2].o.select(1, 4).fill_(kNan);    // next to nothing, but not nothing: lse = -300
    const auto [o, lse] = join(parts);
    for (const int64_t token : {1, 3}) {
      EXPECT_TRUE(o.select(1, token).isnan().all().item<bool>()) << token;
      EXPECT_TRUE(lse.select(2, token).isnan().all().item<bool>()) << token;
    }
    EXPECT_TRUE(o.select(1, 4).isnan().all().item<bool>());
    for (const int64_t token : {0, 2}) EXPECT_FALSE(o.select(1, token).isnan().any().item<bool>()) << token;
  }
  Parts parts = draw(at::kFloat);
  parts[0].lse.select(2, 1).fill_(kNan);
  const auto results = run(parts, true, false);
  EXPECT_TRUE(results[2].select(1, 1).isnan().all().item<bool>());
  EXPECT_FALSE(results[2].select(1, 3).isnan().any().item<bool>());
}

// Whatever the size of the scores, only -inf is an empty part.
TEST_F(Merge, PartsOfHugeScoresCount) {
  for (const auto join : {merge_attention, merge_attention_reference})
    for (const double lse : {-1e38, -1e31, -1e29, 1e29}) {
      Parts parts = draw(at::kFloat);
      for (auto& part : parts) part.lse.fill_(lse);
      const auto joined = join(parts);
      at::Tensor mean = parts[0].o.to(at::kDouble);
      for (size_t i = 1; i < parts.size(); ++i) mean = mean + parts[i].o.to(at::kDouble);
      EXPECT_LE(relative_error(joined.o, mean / static_cast<double>(parts.size())), 1e-6) << lse;
      EXPECT_LE((joined.lse.to(at::kDouble) / lse - 1.0).abs().max().item<double>(), 1e-6) << lse;
    }
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
