// Shared wavefronts and global sectors of kernels at sizes that the operators' own tests leave out: wide
// heads and the single step of the recurrence, decoding with small heads. Full tiles must waste nothing.
#include "tests/layers/ops/cuda/kernel_cases.h"

namespace longreach::test {
namespace {

void expect_no_waste(const Outcome& outcome) {
  EXPECT_TRUE(outcome.errors.empty()) << outcome.errors[0];
  EXPECT_LE(outcome.error, 1e-2);
  EXPECT_LE(outcome.wavefronts, 1.05);
  EXPECT_LE(outcome.sectors, 1.10);
}

TEST(Traffic, WideHeadsOfTheRecurrence) {
  for (const auto& [dk, dv] : std::vector<std::pair<int64_t, int64_t>>{{128, 128}, {256, 64}, {64, 256}}) {
    SCOPED_TRACE(text(dk, '/', dv));
    expect_no_waste(RecurrenceLaunch(128, dk, dv).run(Kernels(file_of), true));
  }
}

// Whole tiles, and lengths that end within one.
TEST(Traffic, DecodingWithSmallHeads) {
  for (const int64_t keys : {512, 300, 129})
    for (const int splits : {1, 2}) {
      SCOPED_TRACE(text(keys, " keys, splits ", splits));
      expect_no_waste(
          AttentionLaunch(1, keys, 16)
              .forward(Kernels(file_of), {.path = interval::ForwardPath::kDecode, .splits = splits}));
    }
}

TEST(Traffic, OneStepOfTheRecurrence) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16, DType::kFloat32})
    expect_no_waste(StepLaunch(dtype).run(Kernels(file_of)));
}

}  // namespace
}  // namespace longreach::test
