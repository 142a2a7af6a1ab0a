// The loops behind the measured peak: what was compiled is what is counted, and the clock is the thread's
// own. How fast a CPU or a library is, no test can know.
#include "layers/ops/cpu/peak.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <thread>

#include "tests/support/program.h"

namespace longreach {
namespace {

// How many instructions of each name a function of this very program holds, by binutils' disassembler.
std::map<std::string, int> instructions_of(const std::string& function) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe").string();
  std::istringstream lines(
      test::run_command({"objdump", "-C", "--no-show-raw-insn",
                         "--disassemble=longreach::(anonymous namespace)::" + function + "()", program})
          .out);
  const std::regex instruction("^ *[0-9a-f]+:\\s+(\\S+)");
  std::map<std::string, int> counts;
  std::smatch match;
  for (std::string line; std::getline(lines, line);) {
    if (std::regex_search(line, match, instruction)) ++counts[match[1]];
  }
  return counts;
}

int with_prefix(const std::map<std::string, int>& counts, const std::string& prefix) {
  int total = 0;
  for (const auto& [name, count] : counts) total += name.starts_with(prefix) ? count : 0;
  return total;
}

// A compiler that sees equal accumulators keeps one of them, and the loop reports a multiple of the peak.
TEST(Peak, EveryChainOfTheLoopsIsCompiled) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer compiles instructions of its own into the loops";
#endif
#if !defined(__x86_64__)
  GTEST_SKIP() << "no loops for this processor";
#endif
  for (const char* function : {"avx2_float32", "avx512_float32"})
    EXPECT_EQ(with_prefix(instructions_of(function), "vfmadd"), 12) << function;
  EXPECT_EQ(with_prefix(instructions_of("avx512_bfloat16"), "vdpbf16ps"), 12);
  EXPECT_EQ(with_prefix(instructions_of("amx_bfloat16"), "tdpbf16ps"), 6);
}

TEST(Peak, IsTheBestRunByTheClockThatItIsGiven) {
  double clock = 0;
  int run = 0;
  // One run in three is not held up by others; 2e6 operations in a millisecond.
  const auto loop = [&] {
    clock += run++ % 3 == 2 ? 1e-3 : 7e-3;
    return 2e6;
  };
  EXPECT_NEAR(best_rate(loop, [&] { return clock; }), 2e9, 1.0);
  EXPECT_GE(clock, 0.06);
}

TEST(Peak, ItsClockStandsStillWhileTheThreadSleeps) {
  const double before = thread_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_LT(thread_seconds() - before, 0.1);
}

TEST(Peak, DotProductsAreNoSlowerThanFloat32) {
  const Peak peak = measure_peak();
  EXPECT_GE(peak.bfloat16, peak.float32);
  const Peak both = larger({.float32 = 1, .bfloat16 = 5}, {.float32 = 2, .bfloat16 = 3});
  EXPECT_EQ(both.float32, 2);
  EXPECT_EQ(both.bfloat16, 5);
}

}  // namespace
}  // namespace longreach
