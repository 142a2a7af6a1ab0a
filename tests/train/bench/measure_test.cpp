// From a setting to a row, with kernels that are right, wrong, or too fast to be true.
#include "train/bench/measure.h"

#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/train/bench/cases.h"

namespace longreach::bench {
namespace {

using test::causal_attention;
using test::formula_case;
using test::small_setting;

constexpr Peak kFast{.float32 = 1e13, .bfloat16 = 1e13};

TEST(Measure, ARightKernelGetsItsNumbers) {
  for (const std::string pass : {"forward", "both"}) {
    const Row row = measure(formula_case(), small_setting(pass), kFast);
    EXPECT_EQ(row.refused, "");
    EXPECT_TRUE(row.peer_same_function);
    EXPECT_GT(row.seconds_min, 0);
    EXPECT_LE(row.seconds_min, row.seconds_median);
    EXPECT_LE(row.peer_seconds_min, row.peer_seconds_median);
    EXPECT_GT(row.ratio, 0);
    EXPECT_NEAR(row.ratio_of_minima, row.peer_seconds_min / row.seconds_min, 1e-12);
    EXPECT_LT(row.error, 5e-6);
  }
}

TEST(Measure, WithoutAPeerThereIsNoRatio) {
  Setting setting = small_setting("forward");
  setting.peer = "";
  const Row row = measure(formula_case(), setting, kFast);
  EXPECT_EQ(row.refused, "");
  EXPECT_EQ(row.ratio, 0);
}

TEST(Measure, AWrongKernelGetsNone) {
  const auto forgets_the_diagonal = [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return causal_attention(q, k.roll(1, 1), v.roll(1, 1));
  };
  const Row row = measure(formula_case(forgets_the_diagonal), small_setting("forward"), kFast);
  EXPECT_THAT(row.refused, testing::HasSubstr("o disagrees with the float64 reference"));
  EXPECT_EQ(row.seconds_min, 0);
  EXPECT_EQ(row.ratio, 0);
}

// Outputs that never leave memory: the right values stand there from an earlier call, nothing is computed.
TEST(Measure, AKernelAboveThePeakGetsNone) {
  at::Tensor remembered;
  const auto cheats = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    if (!remembered.defined()) remembered = causal_attention(q, k, v).contiguous();
    return remembered;
  };
  Setting setting = small_setting("forward");
  setting.tokens = 2048;
  setting.peer = "";
  const Row row = measure(formula_case(cheats), setting, measure_peak());
  EXPECT_THAT(row.refused, testing::HasSubstr("above this machine's peak"));
  EXPECT_EQ(row.seconds_min, 0);
}

TEST(Measure, AKernelThatThrowsIsReported) {
  const auto throws = [](const at::Tensor&, const at::Tensor&, const at::Tensor&) -> at::Tensor {
    throw Error("no such luck");
  };
  EXPECT_EQ(measure(formula_case(throws), small_setting("forward"), kFast).refused, "no such luck");
}

TEST(Measure, APeerThatReplacesIsMarked) {
  for (const BenchCase& one : {sliding_case(), lightning_case()}) {
    const Setting setting = small_setting("both");
    const auto peer = make_peer(one, setting, make_problem(setting));
    EXPECT_FALSE(peer->same_function()) << one.name;
  }
}

// Says when it ran, takes a millisecond by its own clock.
class Recorder : public Contestant {
 public:
  Recorder(char name, std::string& log) : name_(name), log_(log) {}
  Result result() override { return {}; }
  Timing run(int64_t repeats) override {
    log_ += name_;
    return {0.05 * static_cast<double>(repeats), 0.05 * static_cast<double>(repeats)};
  }
  bool same_function() const override { return true; }

 private:
  char name_;
  std::string& log_;
};

TEST(Measure, SidesTakeTurnsInBeginning) {
  std::string log;
  Recorder ours('o', log), peer('p', log);
  const Samples samples = alternate(ours, &peer, 4);
  EXPECT_EQ(log.substr(4), "oppooppo") << "after two warm-up calls each";
  EXPECT_EQ(samples.ours.size(), 4U);
  EXPECT_EQ(samples.peer.size(), 4U);
  EXPECT_DOUBLE_EQ(samples.ours[0].cpu, 0.05);
}

TEST(Measure, FlopsCountVisiblePairsOnly) {
  Setting setting{.batch = 2, .tokens = 100, .heads = 3, .head_dim = 16};
  EXPECT_DOUBLE_EQ(softmax_flops(setting, 0), 2.0 * 3 * (100 * 101 / 2) * 16 * 4);
  EXPECT_DOUBLE_EQ(softmax_flops(setting, 1), 2.0 * 3 * 100 * 16 * 4);
  EXPECT_DOUBLE_EQ(softmax_flops(setting, 10), 2.0 * 3 * (55 + 90 * 10) * 16 * 4);
  EXPECT_DOUBLE_EQ(softmax_flops(setting, 1000), softmax_flops(setting, 0));
  setting.pass = "both";
  EXPECT_DOUBLE_EQ(softmax_flops(setting, 0), 2.0 * 3 * (100 * 101 / 2) * 16 * 14);
}

}  // namespace
}  // namespace longreach::bench
