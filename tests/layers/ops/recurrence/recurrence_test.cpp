// The fused recurrence against its float64 reference, forward and all gradients, and the reference against
// central differences.
#include <ATen/Context.h>
#include <ATen/TensorIndexing.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <limits>
#include <random>

#include "core/error.h"
#include "tests/layers/ops/recurrence/cases.h"

namespace longreach::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Fresh memory holds NaN: an element that a kernel forgets to write is seen.
class Recurrence : public ::testing::Test {
 protected:
  void SetUp() override { at::globalContext().setDeterministicAlgorithms(true, false); }
  void TearDown() override { at::globalContext().setDeterministicAlgorithms(false, false); }
};

TEST_F(Recurrence, PoisonIsOn) { EXPECT_TRUE(at::empty({3}, at::kFloat).isnan().all().item<bool>()); }

TEST_F(Recurrence, EveryLength) {
  for (const int64_t tokens : {0, 1, 2, 63, 64, 65, 200, 257})
    for (const auto decay : {DecayKind::kNone, DecayKind::kHead, DecayKind::kToken})
      expect_matches_reference({.batch = 2, .tokens = tokens, .dk = 24, .dv = 40, .decay = decay});
}

TEST_F(Recurrence, BFloat16) {
  for (const auto decay : {DecayKind::kNone, DecayKind::kHead, DecayKind::kToken})
    for (const int64_t tokens : {1, 100})
      expect_matches_reference({.tokens = tokens,
                                .heads = 4,
                                .key_heads = 2,
                                .value_heads = 1,
                                .dk = 17,
                                .dv = 33,
                                .decay = decay},
                               at::kBFloat16);
}

TEST_F(Recurrence, SharedHeads) {
  for (const auto& [hk, hv] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 6}, {6, 1}, {2, 3}, {3, 3}, {1, 1}})
    expect_matches_reference({.tokens = 70,
                              .heads = 6,
                              .key_heads = hk,
                              .value_heads = hv,
                              .decay = DecayKind::kToken,
                              .chunk = 16});
}

// Several heads: the gradient of one constant decay is a single number, the sum of 2.6 million terms of
// either sign, whose rounding error beside its own size is a matter of luck, for the operator and for the
// reference that judges it.
TEST_F(Recurrence, LargestHeads) {
  expect_matches_reference(
      {.tokens = 20, .heads = 4, .key_heads = 4, .value_heads = 4, .dk = 256, .dv = 512, .chunk = 16});
}

TEST_F(Recurrence, HardDecaysPerHead) {
  for (const double step : {0.0, -1e-6, -5.0, -60.0, -kInfinity})
    expect_matches_reference({.tokens = 150, .initial = true, .chunk = 64, .steps = {step}});
}

TEST_F(Recurrence, HardDecaysPerToken) {
  for (const auto& steps : std::vector<std::vector<double>>{{-60.0},
                                                            {0.0, -1e-7, -60.0},
                                                            {0.0, -1e-6, -5.0, -60.0, -kInfinity},
                                                            {-kInfinity},
                                                            {-1e30, -1e-3},
                                                            {0.0}})
    for (const int64_t chunk : {16, 64})
      expect_matches_reference({.tokens = 150, .decay = DecayKind::kToken, .chunk = chunk, .steps = steps});
}

TEST_F(Recurrence, PackedDocuments) {
  for (const auto decay : {DecayKind::kNone, DecayKind::kHead, DecayKind::kToken})
    for (const bool initial : {false, true})
      expect_matches_reference({.tokens = 231,
                                .decay = decay,
                                .bounds = {0, 0, 1, 18, 83, 83, 131, 231, 231},
                                .initial = initial,
                                .chunk = 32});
}

TEST_F(Recurrence, NoDocuments) { expect_matches_reference({.tokens = 0, .bounds = {0}}); }

TEST_F(Recurrence, ManyHeadsTakeTheUnsplitForm) {
  expect_matches_reference(
      {.tokens = 150, .heads = 9, .key_heads = 9, .value_heads = 9, .decay = DecayKind::kToken, .chunk = 16});
}

TEST_F(Recurrence, RandomShapes) {
  std::mt19937 random(2024);
  const auto pick = [&](std::initializer_list<int64_t> list) {
    return *(list.begin() + random() % list.size());
  };
  for (uint64_t seed = 0; seed < 200; ++seed) {
    RecurrenceCase c{.batch = pick({1, 1, 2, 3}),
                     .tokens = static_cast<int64_t>(random() % 40),
                     .heads = pick({1, 2, 4, 6})};
    const auto divisor = [&] {
      int64_t d = 1 + static_cast<int64_t>(random() % c.heads);
      while (c.heads % d != 0) --d;
      return d;
    };
    c.key_heads = divisor(), c.value_heads = divisor();
    c.dk = 1 + static_cast<int64_t>(random() % 40), c.dv = 1 + static_cast<int64_t>(random() % 70);
    c.decay = static_cast<DecayKind>(random() % 3);
    c.initial = random() % 2 != 0;
    c.chunk = pick({16, 16, 32, 64, 128});
    c.seed = seed;
    if (c.batch == 1 && random() % 2 != 0) {
      for (int i = 0; i < 3; ++i) c.bounds.push_back(static_cast<int32_t>(random() % (c.tokens + 1)));
      c.bounds.push_back(0), c.bounds.push_back(static_cast<int32_t>(c.tokens));
      std::sort(c.bounds.begin(), c.bounds.end());
    }
    expect_matches_reference(c, seed % 4 == 3 ? at::kBFloat16 : at::kFloat);
    if (HasFailure()) return;
  }
}

// Smaller vectors than this CPU has.
TEST_F(Recurrence, EveryVectorWidth) {
  for (const int64_t target : {static_cast<int64_t>(HWY_AVX2), static_cast<int64_t>(HWY_EMU128)}) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    expect_matches_reference({.tokens = 100,
                              .heads = 4,
                              .key_heads = 2,
                              .dk = 23,
                              .dv = 37,
                              .decay = DecayKind::kToken,
                              .chunk = 32});
    expect_matches_reference({.tokens = 70, .dk = 64, .dv = 64}, at::kBFloat16);
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
}

TEST_F(Recurrence, ReferenceMatchesCentralDifferences) {
  const RecurrenceCase c{.tokens = 7,
                         .heads = 2,
                         .key_heads = 1,
                         .dk = 3,
                         .dv = 2,
                         .decay = DecayKind::kToken,
                         .bounds = {0, 3, 3, 7}};
  RecurrenceInputs inputs = draw(c, at::kFloat);
  for (at::Tensor& x : inputs) x = x.to(at::kDouble);
  const Named results = run(c, inputs, recurrence_reference, true);
  const auto value = [&] {
    const Named r = run(c, inputs, recurrence_reference, true);
    return ((r[0].second * inputs[5]).sum() + (r[1].second * inputs[6]).sum()).item<double>();
  };
  constexpr double kStep = 1e-5;
  for (size_t i = 0; i < 5; ++i) {
    double* data = inputs[i].mutable_data_ptr<double>();
    const at::Tensor grad = results[2 + i].second.contiguous();
    for (int64_t j = 0; j < inputs[i].numel(); j += 3) {
      const double kept = data[j];
      data[j] = kept + kStep;
      const double above = value();
      data[j] = kept - kStep;
      const double below = value();
      data[j] = kept;
      EXPECT_NEAR(grad.const_data_ptr<double>()[j], (above - below) / (2 * kStep), 1e-7)
          << results[2 + i].first << " " << j;
    }
  }
}

TEST_F(Recurrence, RejectsWrongArguments) {
  const RecurrenceInputs x = draw({.decay = DecayKind::kToken}, at::kFloat);
  EXPECT_THROW(recurrence(x[0].to(at::kDouble), x[1], x[2]), DtypeError);
  EXPECT_THROW(recurrence(x[0], x[1].to(at::kBFloat16), x[2]), DtypeError);
  EXPECT_THROW(recurrence(x[0], x[1].narrow(1, 0, 5), x[2]), ShapeError);
  EXPECT_THROW(recurrence(x[0], x[1].repeat({1, 1, 2, 1}), x[2]), ShapeError);
  EXPECT_THROW(recurrence(x[0], x[1], x[2], x[3].narrow(1, 0, 5)), ShapeError);
  EXPECT_THROW(recurrence(x[0], x[1], x[2], {}, x[4].narrow(1, 0, 1)), ShapeError);
  EXPECT_THROW(recurrence(x[0], x[1], x[2], {}, {}, at::tensor({0, 5}, at::kInt)), ShapeError);
  EXPECT_THROW(recurrence(x[0], x[1], x[2], {}, {}, {}, {.chunk = 48}), ShapeError);
  try {
    recurrence(x[0], x[1].repeat({1, 1, 2, 1}), x[2]);
  } catch (const ShapeError& e) {
    EXPECT_STREQ(e.what(), "recurrence: k: 4 heads, expected a divisor of the 2 of q");
  }
}

}  // namespace
}  // namespace longreach::test
