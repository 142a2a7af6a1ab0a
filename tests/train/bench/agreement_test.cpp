// Wrong results and impossible rates are refused, right ones pass.
#include "train/bench/agreement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/train/bench/cases.h"

namespace longreach::bench {
namespace {

using test::causal_attention;
using test::formula_case;
using test::small_setting;

Result result_of(const BenchCase& bench_case, const Problem& problem, bool backward = true) {
  return local_contestant(bench_case, problem, backward)->result();
}

double check_against_formula(const Result& result, const Problem& problem, bool backward = true) {
  return require_reference("formula", result, problem, causal_attention, backward);
}

std::string refusal_of(const Result& result, const Problem& problem) {
  try {
    check_against_formula(result, problem);
  } catch (const Refusal& refusal) {
    return refusal.what();
  }
  return "";
}

TEST(Agreement, RightResultsPassInEveryDtypeAndWithSharedKeys) {
  for (const std::string dtype : {"float32", "bfloat16"}) {
    for (const int64_t kv_heads : {1, 2}) {
      Setting setting = small_setting("both", dtype);
      setting.kv_heads = kv_heads;
      const Problem problem = make_problem(setting);
      EXPECT_LT(check_against_formula(result_of(formula_case(), problem), problem), 2e-2) << dtype;
    }
  }
}

// Each fault sits in one place of one tensor, and the rest is right.
TEST(Agreement, EveryFaultyTensorIsNamed) {
  const Problem problem = make_problem(small_setting("both"));
  const Result right = result_of(formula_case(), problem);
  const auto damage = [&](at::Tensor Result::*member) {
    Result wrong = right;
    wrong.*member = (right.*member).clone();
    (wrong.*member).select(1, 95).mul_(1.5);
    return refusal_of(wrong, problem);
  };
  EXPECT_THAT(damage(&Result::o), testing::StartsWith("formula: o disagrees"));
  EXPECT_THAT(damage(&Result::dq), testing::StartsWith("formula: dq disagrees"));
  EXPECT_THAT(damage(&Result::dk), testing::StartsWith("formula: dk disagrees"));
  EXPECT_THAT(damage(&Result::dv), testing::StartsWith("formula: dv disagrees"));
}

TEST(Agreement, NotANumberIsRefused) {
  const Problem problem = make_problem(small_setting("both"));
  Result result = result_of(formula_case(), problem);
  result.o = result.o.clone();
  result.o.select(1, 0).fill_(std::numeric_limits<double>::quiet_NaN());
  EXPECT_THAT(refusal_of(result, problem), testing::HasSubstr("rows 0.."));
}

TEST(Agreement, AMissingGradientIsRefused) {
  const Problem problem = make_problem(small_setting("both"));
  Result result = result_of(formula_case(), problem);
  result.dv = at::Tensor();
  EXPECT_EQ(refusal_of(result, problem), "formula: no dv");
}

// At lengths where the reference sees few rows only, a fault in the last of them must still show.
TEST(Agreement, LongSequencesAreCheckedByRows) {
  Setting setting = small_setting("forward");
  setting.tokens = 3000;
  setting.heads = setting.kv_heads = 8;
  const Problem problem = make_problem(setting);
  Result result = result_of(formula_case(), problem, false);
  EXPECT_LT(check_against_formula(result, problem, false), 5e-6);
  // As if the last block of keys had been left out.
  result.o = result.o.clone();
  result.o.slice(1, 2990, 3000)
      .copy_(causal_attention(problem.q.slice(1, 2990, 3000), problem.k.slice(1, 0, 2936),
                              problem.v.slice(1, 0, 2936)));
  EXPECT_THROW(check_against_formula(result, problem, false), Refusal);
}

TEST(Agreement, TwoResultsOfOneFunctionMustBeTheSame) {
  const Problem problem = make_problem(small_setting("both"));
  const Result a = result_of(formula_case(), problem);
  const auto sdpa = sdpa_contestant(interval_attention_case(), problem, true);
  EXPECT_TRUE(sdpa->same_function());
  Result b = sdpa->result();
  EXPECT_NO_THROW(require_same("formula", a, "sdpa", b, problem, true));
  b.dk = b.dk.clone();
  b.dk.select(1, 40).zero_();  // a row that the reference's stretches need not cover
  EXPECT_THROW(require_same("formula", a, "sdpa", b, problem, true), Refusal);
}

TEST(Agreement, RatesAboveThePeakAreRefused) {
  EXPECT_DOUBLE_EQ(require_possible_rate("x", 100e9, 1.0, 200e9, 1), 0.5);
  EXPECT_DOUBLE_EQ(require_possible_rate("x", 300e9, 1.0, 200e9, 2), 0.75);
  EXPECT_THROW(require_possible_rate("x", 300e9, 1.0, 200e9, 1), Refusal);
  EXPECT_EQ(require_possible_rate("x", 300e9, 1.0, 0, 1), 0) << "an unknown peak judges nothing";
}

TEST(Agreement, OneRowOfAHundredMayHaveChosenDifferently) {
  const at::Tensor right = make_problem({.tokens = 200, .heads = 1, .kv_heads = 1}).q.to(at::kDouble);
  const auto refused = [&](int64_t wrong_rows) {
    at::Tensor found = right.to(at::kFloat, false, /*copy=*/true);
    found.slice(1, 0, wrong_rows).neg_();
    try {
      EXPECT_LT(require_rows("case", "y", found, right), 1e-6);
      return std::string();
    } catch (const Refusal& refusal) {
      return std::string(refusal.what());
    }
  };
  EXPECT_EQ(refused(0), "");
  EXPECT_EQ(refused(2), "");
  EXPECT_THAT(refused(3), testing::HasSubstr("case: y disagrees with the float64 reference"));
  EXPECT_THROW(require_rows("case", "y", right * (1 + 2e-4), right), Refusal);
  EXPECT_THROW(require_rows("case", "y", right / 0 * 0, right), Refusal);
}

}  // namespace
}  // namespace longreach::bench
