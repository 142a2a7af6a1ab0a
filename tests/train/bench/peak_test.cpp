// The measured peak against a well-tuned matrix product: below it, but not by far.
#include "train/bench/peak.h"
#include "layers/ops/parallel.h"

#include <ATen/ops/mm.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/random_tensors.h"
#include "train/bench/clock.h"

namespace longreach::bench {
namespace {

double matrix_product_rate(at::ScalarType dtype) {
  constexpr int64_t kSize = 768;
  const at::Tensor a = longreach::test::normal({kSize, kSize}, 1, dtype);
  const at::Tensor b = longreach::test::normal({kSize, kSize}, 2, dtype);
  double best = 0;
  for (int i = 0; i < 6; ++i) {
    const Timing start = now();
    const at::Tensor product = at::mm(a, b);
    best = std::max(best, 2.0 * kSize * kSize * kSize / since(start).cpu);
  }
  return best;
}

TEST(Peak, BoundsAMatrixProductClosely) {
  set_num_threads(1);
  const Peak peak = measure_peak();
  if (peak.float32 == 0) GTEST_SKIP() << "no register loop for this CPU";
  EXPECT_GE(peak.bfloat16, peak.float32);
  // A loop whose accumulators the compiler merges reads three times too high and fails the second line of
  // each.
  const double float32 = matrix_product_rate(at::kFloat), bfloat16 = matrix_product_rate(at::kBFloat16);
  EXPECT_LE(float32, 1.1 * peak.float32);
  EXPECT_GE(float32, 0.4 * peak.float32);
  EXPECT_LE(bfloat16, 1.1 * peak.bfloat16);
}

}  // namespace
}  // namespace longreach::bench
