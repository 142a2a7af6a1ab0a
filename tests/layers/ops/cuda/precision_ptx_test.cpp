// What fp32 kernels lose to tensor cores that truncate (tests/ptx/interpreter/tensor_sum.h), where all terms
// of the sums are positive and nothing cancels out.
#include "tests/layers/ops/cuda/kernel_cases.h"

namespace longreach::test {
namespace {

// The products of a step lose at most 2^-21 of it, and the parts that factors are split into as much, but
// evenly in both directions (layers/ops/cuda/split_sums.cuh); a rounded addition a step and the powers of the
// softmax add less than 2^-22.
constexpr double kLimit = 3 * 0x1p-22;

void expect_precise(const Outcome& outcome, double limit) {
  EXPECT_TRUE(outcome.errors.empty()) << outcome.errors[0];
  EXPECT_LE(outcome.error, limit);
}

TEST(Float32Products, AttentionKeepsLongSums) {
  const AttentionLaunch launch(64, 1024, 1, DType::kFloat32, true);
  expect_precise(launch.forward(Kernels(file_of), {.path = interval::ForwardPath::kTiles}), kLimit);
  // The gradients of weights are sums of 64 products of 2 / pi each on average, of which the mean over the
  // keys is taken away: sqrt(64 (1 - (2 / pi)^2)) is left, a seventh.
  expect_precise(launch.backward(Kernels(file_of)), 8 * kLimit);
}

TEST(Float32Products, DecodingKeepsLongSums) {
  expect_precise(AttentionLaunch(1, 2048, 16, DType::kFloat32, true)
                     .forward(Kernels(file_of), {.path = interval::ForwardPath::kDecode, .splits = 1}),
                 kLimit);
}

TEST(Float32Products, TheRecurrenceKeepsItsSums) {
  expect_precise(RecurrenceLaunch(192, 128, 64, DType::kFloat32, true).run(Kernels(file_of), true), kLimit);
}

}  // namespace
}  // namespace longreach::test
