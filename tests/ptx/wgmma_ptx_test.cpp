// The interpreter on a kernel of sm_90a: TMA, mbarriers, wgmma, named barriers, proxies; each faulty version
// is caught.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/ptx/interpreter/interpreter.h"
#include "tests/ptx/interpreter/mutation.h"
#include "tests/ptx/interpreter/types.h"
#include "tests/ptx/kernels/wgmma.h"

namespace longreach::ptx {
namespace {

struct Product {
  Report report;
  double error = 0;
};

cuda::TensorMap map_of(const void* data, uint32_t element_bytes, uint64_t columns, uint64_t rows,
                       uint32_t swizzle) {
  return {.data = data,
          .element_bytes = element_bytes,
          .rank = 2,
          .size = {columns, rows},
          .stride = {columns * element_bytes},
          .box = {64, 64},
          .swizzle_bytes = swizzle};
}

Product multiply(const Module& module, const std::string& kernel, int rows, int depth,
                 bool transposed = false, Options options = {}) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> q(static_cast<size_t>(rows) * depth), k(q.size());
  for (auto* x : {&q, &k}) {
    for (auto& v : *x) v = to_bfloat(normal(random)).bits;
  }
  Memory memory;
  WgmmaParameters p{};
  p.depth = depth;
  p.transposed = transposed;
  auto* s = memory.allocate_array<float>("s", static_cast<size_t>(rows) * rows);
  const auto tiles = static_cast<uint32_t>((rows + 63) / 64);
  cuda::Launch launch = cuda::make_launch(kernel, {tiles, tiles}, {160}, 2 * 16384 + 16384 + 64, p);
  const auto* dq = memory.upload("q", q);
  const auto* dk = memory.upload("k", k);
  launch.tensor_maps = {{offsetof(WgmmaParameters, q), map_of(dq, 2, depth, rows, 128)},
                        {offsetof(WgmmaParameters, k),
                         transposed ? map_of(dk, 2, rows, depth, 128) : map_of(dk, 2, depth, rows, 128)},
                        {offsetof(WgmmaParameters, s), map_of(s, 4, rows, rows, 0)}};
  Product result{.report = run(module, launch, memory, options)};
  double error = 0, norm = 0;
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < rows; ++j) {
      double sum = 0;
      for (int c = 0; c < depth; ++c) {
        sum += static_cast<double>(to_float(Bfloat{q[i * depth + c]})) *
               to_float(Bfloat{k[transposed ? c * rows + j : j * depth + c]});
      }
      error += std::pow(s[i * rows + j] - sum, 2);
      norm += sum * sum;
    }
  }
  result.error = std::sqrt(error / norm);
  return result;
}

Product multiply(const std::string& kernel, int rows, int depth, bool transposed = false,
                 Options options = {}) {
  static const Module module = load_kernels("tests_wgmma_sm90a");
  return multiply(module, kernel, rows, depth, transposed, options);
}

TEST(WgmmaKernel, RightNumbersAndNoErrors) {
  for (const int rows : {64, 200}) {
    for (const bool transposed : {false, true}) {
      const Product r = multiply("wgmma_none", rows, 256, transposed);
      EXPECT_TRUE(r.report.errors.empty()) << r.report.text();
      EXPECT_LT(r.error, 1e-6) << rows << " " << transposed;
    }
  }
}

TEST(WgmmaKernel, SchedulesChangeNothing) {
  for (const uint64_t schedule : {1, 2, 3, 4}) {
    const Product r = multiply("wgmma_none", 128, 320, false, {.schedule = schedule});
    EXPECT_TRUE(r.report.errors.empty()) << r.report.text();
    EXPECT_LT(r.error, 1e-6);
  }
}

void expect_caught(const std::string& kernel, const std::string& what) {
  const Report report = multiply(kernel, 128, 256).report;
  for (const std::string& e : report.errors) {
    if (e.find(what) != std::string::npos) return;
  }
  ADD_FAILURE() << kernel << ": nothing says `" << what << "`\n" << report.text();
}

TEST(WgmmaKernel, FaultsAreCaught) {
  expect_caught("wgmma_wrong_bytes", "mbarrier this warp has not waited for");
  expect_caught("wgmma_one_warp_waits", "mbarrier this warp has not waited for");
  expect_caught("wgmma_no_wait_for_empty", "mbarrier this warp has not waited for");
  expect_caught("wgmma_no_wgmma_fence", "missing wgmma.fence");
  expect_caught("wgmma_early_release", "writes what another warp reads");
  expect_caught("wgmma_no_wait_for_wgmma", "has not been waited for");
  expect_caught("wgmma_no_init_fence", "missing fence between mbarrier.init");
  expect_caught("wgmma_no_proxy_fence", "missing fence.proxy.async");
  expect_caught("wgmma_no_wait_for_store", "bulk store may still read");
  EXPECT_FALSE(multiply("wgmma_wrong_step", 128, 256).error < 0.01);
}

// The mutation gate over the same kernel, by edits of its PTX.
TEST(WgmmaKernel, MutantsAreCaught) {
  const char* kernel = "wgmma_none";
  const Mutant mutants[] = {
      {"half of the bytes are expected", kernel, "mov\\.u32(\\s+\\S+) 16384;", "mov.u32$1 8192;", 0,
       "mbarrier this warp has not waited for"},
      {"too many bytes are expected", kernel, "mov\\.u32(\\s+\\S+) 16384;", "mov.u32$1 16400;", 0,
       "deadlock"},
      {"full stages are not waited for", kernel, "mbarrier\\.try_wait.*", "setp.eq.u32 p, 0, 0;", 1,
       "mbarrier this warp has not waited for"},
      {"empty stages are not waited for", kernel, "mbarrier\\.try_wait.*", "setp.eq.u32 p, 0, 0;", 0,
       "mbarrier this warp has not waited for"},
      {"stages are never given back", kernel, "mbarrier\\.arrive\\.shared.*", "", 0, "deadlock"},
      {"no fence after mbarrier.init", kernel, "fence\\.mbarrier_init.*", "", 0,
       "missing fence between mbarrier.init"},
      {"no barrier after mbarrier.init", kernel, "bar\\.sync\\s+0;", "", 0, "mbarrier"},
      {"no wgmma.fence", kernel, "wgmma\\.fence.*", "", 0, "missing wgmma.fence"},
      {"wgmma is not waited for", kernel, "wgmma\\.wait_group.*", "", 0, "has not been waited for"},
      {"wgmma is not committed", kernel, "wgmma\\.commit_group.*", "", 0, "has not been waited for"},
      {"no proxy fence before the TMA store", kernel, "fence\\.proxy\\.async.*", "", 0,
       "missing fence.proxy.async"},
      {"no barrier before the TMA store", kernel, "bar\\.sync 1, 128;", "", 0, "another warp"},
      {"the TMA store is not waited for", kernel, "cp\\.async\\.bulk\\.wait_group.*", "", 0,
       "bulk store may still read"},
      {"descriptor: a wrong swizzle", kernel, "4611686293305360384;", "-9223371761976868864;", 0, kNumbers},
      {"descriptor: a wrong step in depth", kernel, "(add\\.s64\\s+\\S+ \\S+), 6;", "$1, 4;", 0, kNumbers},
  };
  expect_all_caught(mutants, Kernels([](const std::string&) { return "tests_wgmma_sm90a"; }), 1e-6,
                    [&](const Kernels& kernels) {
                      const Product product = multiply(kernels.module_of(kernel), kernel, 128, 256);
                      return Outcome{.errors = product.report.errors, .error = product.error};
                    });
}

}  // namespace
}  // namespace longreach::ptx
