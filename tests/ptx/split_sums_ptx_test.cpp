// fp32 products by three TF32 products on tensor cores that truncate: the order in which terms are added
// decides how much is lost.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/ptx/interpreter/interpreter.h"
#include "tests/ptx/kernels/split_sums.h"

namespace longreach::ptx {
namespace {

// Root of the mean squared error of a kernel's product, relative. All factors are positive, so that nothing
// that is cut off cancels out.
double error_of(const std::string& kernel, int depth) {
  static const Module module = load_kernels("tests_split_sums");
  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(0.5f, 1.5f);
  std::vector<float> a(static_cast<size_t>(16) * depth), b(static_cast<size_t>(depth) * 8);
  for (float& x : a) x = uniform(random);
  for (float& x : b) x = uniform(random);
  Memory memory;
  const SplitParameters p{memory.upload("a", a), memory.upload("b", b),
                          memory.allocate_array<float>("d", 128), depth};
  const Report report = run(module, cuda::make_launch(kernel, {1}, {32}, 0, p), memory);
  EXPECT_TRUE(report.errors.empty()) << report.text();
  const std::vector<float> found = memory.download(p.d, 128);
  double error = 0, norm = 0;
  for (int r = 0; r < 16; ++r)
    for (int c = 0; c < 8; ++c) {
      double exact = 0;
      for (int k = 0; k < depth; ++k)
        exact += double{a[static_cast<size_t>(r * depth + k)]} * b[static_cast<size_t>(k * 8 + c)];
      error += std::pow(found[static_cast<size_t>(r * 8 + c)] - exact, 2);
      norm += exact * exact;
    }
  return std::sqrt(error / norm);
}

// Each of `steps` steps is cut off half way and at its end: on average by half of the last bit, 2^-24, of
// what is there, half of the step and all of it. Their additions round a sum that grows evenly by 2^-24 /
// sqrt(3), in either direction.
double limit(int steps) { return std::exp2(-24) * std::sqrt(1.5 * 1.5 + steps / 9.0); }

TEST(SplitSums, LoseABitWhateverTheLength) {
  for (const int depth : {8, 64, 512, 4096})
    EXPECT_LE(error_of("split_small_first", depth), limit(depth / 8)) << depth;
}

TEST(SplitSums, TheWrongOrderIsSeen) {
  EXPECT_GT(error_of("split_large_first", 8), limit(1));
  EXPECT_GT(error_of("split_large_first", 16), limit(2));
  EXPECT_GT(error_of("split_into_long_sum", 64), 3 * limit(8));
  EXPECT_GT(error_of("split_into_long_sum", 4096), 100 * limit(512));
}

}  // namespace
}  // namespace longreach::ptx
