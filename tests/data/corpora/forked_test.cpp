// Work in a process of its own: a file that crashes whoever reads it is an error like others.
#include "data/corpora/forked.h"

#include <gmock/gmock.h>
#include <sys/wait.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <new>

#include "tests/data/fixtures.h"

namespace longreach::data {
namespace {

using namespace testing;
using ::testing::HasSubstr;
using ::testing::StrEq;

TEST(RunForked, TellsWorkFromItsEnd) {
  const auto run = [](const std::function<std::string()>& work) {
    return run_forked(work, {.cpu_seconds = 1});
  };
  const std::string long_answer(1 << 20, 'x');
  EXPECT_EQ(run([&] { return long_answer; }), long_answer);
  EXPECT_THROW(run([]() -> std::string { throw DamagedFile("worn"); }), DamagedFile);
  EXPECT_THAT(error_of([&] { run([]() -> std::string { throw DataError("no such thing"); }); }),
              StrEq("no such thing"));
  EXPECT_THROW(run([]() -> std::string { throw std::bad_alloc(); }), std::bad_alloc);
  const auto death = [&](const std::function<void()>& work) -> std::string {
    try {
      run([&] { return work(), std::string("alive"); });
    } catch (const WorkDied& died) {
      EXPECT_TRUE(died.by_itself);
      return died.what();
    }
    return "alive";
  };
  EXPECT_THAT(death([] { ::raise(SIGSEGV); }), HasSubstr("crashed (Segmentation fault)"));
  EXPECT_THAT(death([] { ::raise(SIGFPE); }), HasSubstr("crashed (Floating point exception)"));
  EXPECT_THAT(death([] { std::abort(); }), HasSubstr("crashed (Aborted)"));
  EXPECT_THAT(death([] {
                for (std::atomic<int> turns = 0;; ++turns) {
                }
              }),
              HasSubstr("did not end within 1 s of processor time"));
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);  // nobody is left behind
}

}  // namespace
}  // namespace longreach::data
