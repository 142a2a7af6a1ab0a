// What `longreach info cuda` prints for a table of two kernels.
#include "train/program/info_cuda.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include "core/error.h"
#include "tests/support/program.h"

namespace longreach {
namespace {

TEST(InfoCuda, PrintsEachKernelOnce) {
  std::ostringstream out;
  print_static_report(
      "interval_attention_forward_bf16_64_64 sm_80 230 0 0 0 0 128 128 1200 18 17 4 24\n"
      "interval_attention_forward_bf16_64_64 sm_90 232 8 4 12 0 128 128 1200 18 17 4 24\n"
      "another_kernel sm_80 16 0 0 0 64 0 0 0 0 1 0 1\n",
      out);
  const std::string text = out.str();
  const auto has = [&](const char* words) { return text.find(words) != std::string::npos; };
  EXPECT_TRUE(has("Nothing below was measured"));
  EXPECT_TRUE(has("ESTIMATE"));
  const size_t kernel = text.find("interval_attention_forward_bf16_64_64");
  ASSERT_NE(kernel, std::string::npos);
  EXPECT_EQ(text.find("interval_attention_forward_bf16_64_64", kernel + 1), std::string::npos);
  EXPECT_TRUE(has("128 10.7%"));  // tensor instructions of the main loop
  EXPECT_TRUE(has("17/35"));      // narrow loads
  EXPECT_TRUE(has("4+12"));       // spills
  EXPECT_TRUE(has("440.5"));      // roofline of an A100, us
  EXPECT_TRUE(has("another_kernel"));
}

// The plug-in links libtorch_cuda, with cuDNN and NCCL's process group, where the whole of LibTorch is; it
// says so without a driver or a device.
TEST(InfoCuda, TheProgramNamesTheLibrariesBeneath) {
  const std::filesystem::path plugin =
      std::filesystem::path(LONGREACH_PROGRAM).parent_path() / "liblongreach_cuda.so";
  if (!std::filesystem::exists(plugin)) GTEST_SKIP() << "built without nvcc";
  const test::ProgramResult result = test::run_program({"info", "cuda"});
  ASSERT_EQ(result.code, 0) << result.err;
  const std::string line = result.out.substr(0, result.out.find('\n'));
  if (line.starts_with("built beside the small")) GTEST_SKIP() << line;
  for (const char* words :
       {"CUDA runtime 13.", "cuDNN 9.", "NCCL 2.", "nccl collectives, timeout 600 s", "driver "})
    EXPECT_NE(line.find(words), std::string::npos) << line;
}

TEST(InfoCuda, RefusesAnotherTable) {
  std::ostringstream out;
  EXPECT_THROW(print_static_report("kernel sm_80 1\n", out), DataError);
}

}  // namespace
}  // namespace longreach
