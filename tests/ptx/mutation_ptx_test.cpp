// The mutation gate can fail: an edit that changes nothing, a fault that shows nothing and one that shows
// otherwise than it says are failures.
#include "tests/ptx/interpreter/mutation.h"

#include <cmath>

#include "core/error.h"

namespace longreach::ptx {
namespace {

Kernels kernels() {
  return Kernels([](const std::string&) { return "tests_attention"; });
}

TEST(Mutation, EditsMustChangeSomething) {
  const auto edit = [](const char* pattern, const char* replacement, int which) {
    kernels().with({"fault", "attention_none", pattern, replacement, which, kNumbers});
  };
  EXPECT_NO_THROW(edit("bar\\.sync.*", "", 0));
  EXPECT_THROW(edit("bar\\.sync.*", "", 100), DataError);
  EXPECT_THROW(edit("bar\\.sync", "bar.sync", kEverywhere), DataError);
  EXPECT_THROW(edit("no such instruction", "", kEverywhere), DataError);
  EXPECT_THROW(kernels().module_of("no_such_kernel"), DataError);
}

TEST(Mutation, OneKernelIsChangedAndTheRestAreNot) {
  const Kernels right = kernels();
  const Kernels faulty = right.with({"fault", "attention_none", "bar\\.sync.*", "", kEverywhere, kNumbers});
  EXPECT_EQ(faulty.module_of("attention_none").kernel_names(), std::vector<std::string>{"attention_none"});
  EXPECT_EQ(faulty.module_of("sums_none").kernel_names(), std::vector<std::string>{"sums_none"});
  EXPECT_NE(&faulty.module_of("attention_none").data(), &right.module_of("attention_none").data());
}

TEST(Mutation, Verdicts) {
  const auto verdict = [](const char* caught_by, const Outcome& outcome) {
    return judge({"fault", "kernel", "x", "y", 0, caught_by}, outcome, 0.01);
  };
  EXPECT_EQ(verdict("race", {.errors = {"other", "a race"}, .error = 0}), "");
  EXPECT_NE(verdict("race", {.errors = {"other"}, .error = 1}), "");
  EXPECT_EQ(verdict(kNumbers, {.error = 0.02}), "");
  EXPECT_EQ(verdict(kNumbers, {.error = std::nan("")}), "");
  EXPECT_NE(verdict(kNumbers, {.error = 0.005}), "");
  EXPECT_NE(verdict(kNumbers, {.errors = {"a race"}, .error = 1}), "");
  EXPECT_EQ(verdict(kWavefronts, {.error = 0.005, .wavefronts = 2}), "");
  EXPECT_NE(verdict(kWavefronts, {.error = 0.005, .wavefronts = 1}), "");
  EXPECT_NE(verdict(kWavefronts, {.error = 1, .wavefronts = 2}), "");
}

}  // namespace
}  // namespace longreach::ptx
