// The interpreter on a whole kernel: the right one passes with the right numbers, under every schedule; each
// faulty one is caught.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/ptx/interpreter/interpreter.h"
#include "tests/ptx/interpreter/types.h"
#include "tests/ptx/kernels/attention.h"

namespace longreach::ptx {
namespace {

constexpr int kDim = 64;

std::vector<uint16_t> random_rows(int length, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> rows(static_cast<size_t>(length) * kDim);
  for (auto& x : rows) x = to_bfloat(normal(random)).bits;
  return rows;
}

double value(uint16_t bits) { return to_float(Bfloat{bits}); }

std::vector<double> reference(int length, const std::vector<uint16_t>& q, const std::vector<uint16_t>& k,
                              const std::vector<uint16_t>& v) {
  std::vector<double> o(q.size());
  for (int i = 0; i < length; ++i) {
    std::vector<double> p(static_cast<size_t>(i) + 1);
    double sum = 0;
    for (int j = 0; j <= i; ++j) {
      double s = 0;
      for (int c = 0; c < kDim; ++c) s += value(q[i * kDim + c]) * value(k[j * kDim + c]);
      p[j] = std::exp(s / 8);
      sum += p[j];
    }
    for (int j = 0; j <= i; ++j) {
      for (int c = 0; c < kDim; ++c) o[i * kDim + c] += p[j] / sum * value(v[j * kDim + c]);
    }
  }
  return o;
}

struct Outcome {
  Report report;
  double error = 0;  // RMS, relative
  std::vector<uint16_t> o;
};

Outcome attention(const std::string& kernel, int length, Options options = {}) {
  static const Module module = load_kernels("tests_attention");
  const auto q = random_rows(length, 1), k = random_rows(length, 2), v = random_rows(length, 3);
  Memory memory;
  AttentionParameters p{.q = memory.upload("q", q),
                        .k = memory.upload("k", k),
                        .v = memory.upload("v", v),
                        .o = memory.allocate_array<uint16_t>("o", q.size()),
                        .length = length,
                        .scale_log2 = static_cast<float>(std::log2(std::exp(1.0)) / 8)};
  const auto blocks = static_cast<uint32_t>((length + 63) / 64);
  Outcome result;
  result.report = run(module, cuda::make_launch(kernel, {blocks}, {128}, 5 * 8192, p), memory, options);
  result.o.assign(p.o, p.o + q.size());
  const auto expected = reference(length, q, k, v);
  double error = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += std::pow(value(result.o[i]) - expected[i], 2);
    norm += expected[i] * expected[i];
  }
  result.error = std::sqrt(error / norm);
  return result;
}

TEST(AttentionKernel, RightNumbersAndNoErrors) {
  for (const int length : {1, 63, 64, 65, 200, 257}) {
    const Outcome r = attention("attention_none", length);
    EXPECT_TRUE(r.report.errors.empty()) << r.report.text();
    EXPECT_LT(r.error, 6e-3) << length;
  }
}

TEST(AttentionKernel, SchedulesAndThreadsChangeNothing) {
  const Outcome base = attention("attention_none", 200, {.threads = 1});
  for (const uint64_t schedule : {1, 2, 3}) {
    const Outcome r = attention("attention_none", 200, {.threads = 2, .schedule = schedule});
    EXPECT_TRUE(r.report.errors.empty()) << r.report.text();
    EXPECT_EQ(r.o, base.o);
    EXPECT_EQ(r.report.warp_instructions, base.report.warp_instructions);
  }
}

TEST(AttentionKernel, BankConflictsAreCounted) {
  EXPECT_EQ(attention("attention_none", 128, {.profile = true}).report.shared_wavefront_ratio(), 1.0);
  const Outcome r = attention("attention_no_swizzle", 128, {.profile = true});
  EXPECT_TRUE(r.report.errors.empty()) << r.report.text();
  EXPECT_GT(r.report.shared_wavefront_ratio(), 4.0) << r.report.text();
  EXPECT_EQ(attention("attention_none", 128, {.profile = true}).report.sector_ratio(), 1.0);
}

void expect_caught(const Report& report, const std::string& what) {
  for (const std::string& e : report.errors) {
    if (e.find(what) != std::string::npos) return;
  }
  ADD_FAILURE() << "nothing says `" << what << "`\n" << report.text();
}

TEST(AttentionKernel, FaultsAreCaught) {
  expect_caught(attention("attention_out_of_bounds", 200).report, "out of bounds of global memory");
  expect_caught(attention("attention_missing_wait", 200).report, "unfinished cp.async");
  expect_caught(attention("attention_missing_barrier", 200).report, "another warp");
  expect_caught(attention("attention_missing_last_barrier", 200).report, "writes what another warp reads");
  expect_caught(attention("attention_missing_warp_sync", 200).report, "no __syncwarp between");
  EXPECT_FALSE(attention("attention_missing_shuffle", 200).error < 0.01);  // or NaN
}

Report sums(const std::string& kernel, std::vector<float>* result = nullptr, Options options = {}) {
  static const Module module = load_kernels("tests_attention");
  Memory memory;
  std::vector<float> x(96 * 64);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7);
  const SumParameters p{memory.upload("x", x), memory.upload("sums", std::vector<float>(64))};
  const Report report = run(module, cuda::make_launch(kernel, {3}, {128}, 0, p), memory, options);
  if (result) *result = memory.download(p.sums, 64);
  return report;
}

TEST(SumKernel, RightNumbers) {
  std::vector<float> found;
  const Report report = sums("sums_none", &found);
  EXPECT_TRUE(report.errors.empty()) << report.text();
  for (size_t c = 0; c < 64; ++c) {
    float expected = 0;
    for (size_t r = 0; r < 96; ++r) expected += static_cast<float>((r * 64 + c) % 7);
    EXPECT_EQ(found[c], expected);
  }
}

TEST(SumKernel, FaultsAreCaught) {
  for (const int threads : {1, 2}) {
    expect_caught(sums("sums_not_atomic", nullptr, {.threads = threads}), "race between blocks");
    expect_caught(sums("sums_missing_barrier", nullptr, {.threads = threads}), "another warp");
  }
}

}  // namespace
}  // namespace longreach::ptx
