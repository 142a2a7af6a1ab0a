// Locks between threads, processes and their children.
#include "core/file_lock.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <sstream>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/temporary_folder.h"

namespace longreach {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string host() {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  return name;
}

// A process with a group of its own that takes the lock, does what else it should, says so through a pipe and
// waits to be killed.
pid_t process_that_holds(
    const std::string& path, const std::function<void()>& then = [] {}) {
  int ready[2];
  EXPECT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::setpgid(0, 0);
    const FileLock lock = FileLock::take(path, "child");
    then();
    if (::write(ready[1], "x", 1) == 1)
      while (true) ::pause();
    ::_exit(1);
  }
  ::close(ready[1]);
  char byte = 0;
  EXPECT_EQ(::read(ready[0], &byte, 1), 1);
  ::close(ready[0]);
  return child;
}

void end(pid_t child) {
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

std::string refusal(const std::string& path) {
  try {
    const FileLock lock = FileLock::take(path, "runs/a");
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(FileLock, LetsOneInAtATimeAndLeavesNothing) {
  const TemporaryFolder folder;
  std::atomic<int> inside = 0, most = 0, turns = 0;
  const auto work = [&] {
    for (int i = 0; i < 30; ++i) {
      const FileLock lock = FileLock::wait(folder.path("lock"));
      most = std::max<int>(most, ++inside);
      std::this_thread::sleep_for(
          std::chrono::milliseconds(2));  // others meet a file that was removed under them
      ++turns;
      --inside;
    }
  };
  std::thread a(work), b(work), c(work);
  a.join();
  b.join();
  c.join();
  EXPECT_EQ(most, 1);
  EXPECT_EQ(turns, 90);
  EXPECT_FALSE(std::filesystem::exists(folder.path("lock")));
}

TEST(FileLock, NamesTheProcessAndTheHostThatHoldIt) {
  const TemporaryFolder folder;
  const pid_t child = process_that_holds(folder.path("lock"));
  EXPECT_EQ(refusal(folder.path("lock")), text("runs/a: in use by process ", child, " on host ", host()));
  end(child);
}

TEST(FileLock, IsFreeWhenItsProcessWasKilled) {
  const TemporaryFolder folder;
  end(process_that_holds(folder.path("lock")));
  EXPECT_TRUE(std::filesystem::exists(folder.path("lock"))) << "nobody could remove it";
  EXPECT_EQ(refusal(folder.path("lock")), "");
  EXPECT_FALSE(std::filesystem::exists(folder.path("lock")));
}

TEST(FileLock, ChildrenThatLiveOnDoNotKeepIt) {
  const TemporaryFolder folder;
  const pid_t child = process_that_holds(folder.path("lock"), [] {
    int started[2];
    if (::pipe2(started, O_CLOEXEC) != 0 || ::fork() == 0) {
      ::close(started[1]);
      while (true) ::pause();
    }
    ::close(started[1]);
    char byte = 0;
    if (::read(started[0], &byte, 1) != 0) ::_exit(1);  // until the child has left fork()
    const char* words[] = {"sleep", "1000", nullptr};
    pid_t other = -1;
    if (::posix_spawnp(&other, words[0], nullptr, nullptr, const_cast<char**>(words), environ) != 0)
      ::_exit(1);
  });
  end(child);
  EXPECT_EQ(refusal(folder.path("lock")), "");
  EXPECT_EQ(::kill(-child, SIGKILL), 0) << "its children were to be alive";
}

TEST(FileLock, AForkedProcessRemovesNothing) {
  const TemporaryFolder folder;
  auto lock = std::make_unique<FileLock>(FileLock::take(folder.path("lock"), "parent"));
  const pid_t child = ::fork();
  if (child == 0) {
    lock.reset();
    ::_exit(0);
  }
  ::waitpid(child, nullptr, 0);
  EXPECT_THAT(refusal(folder.path("lock")), HasSubstr("in use by"));
}

// From now on flock() fails in this process, as on a file system without locks.
bool take_locks_away(unsigned error) {
  sock_filter program[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                           BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_flock, 0, 1),
                           BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
                           BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog filter{.len = 4, .filter = program};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

class FileLockWithoutLocks : public testing::TestWithParam<int> {};

TEST_P(FileLockWithoutLocks, WarnsOnceAndGoesOn) {
  constexpr int kNoFilter = 77;
  const TemporaryFolder folder;
  const std::string said = folder.path("said");
  const pid_t child = ::fork();
  if (child == 0) {
    if (!take_locks_away(static_cast<unsigned>(GetParam()))) ::_exit(kNoFilter);
    const std::ofstream file(said);
    std::cerr.rdbuf(file.rdbuf());
    const FileLock one = FileLock::take(folder.path("lock"), "x"),
                   two = FileLock::take(folder.path("lock"), "x"),
                   three = FileLock::wait(folder.path("lock"));
    std::cerr.flush();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status)) << status;
  if (WEXITSTATUS(status) == kNoFilter) GTEST_SKIP() << "this system lets no process filter its own calls";
  EXPECT_EQ(WEXITSTATUS(status), 0);
  std::ostringstream lines;
  lines << std::ifstream(said).rdbuf();
  EXPECT_THAT(lines.str(),
              StartsWith(text("warning: ", folder.path("lock"), ": the file system has no locks (")));
  const std::string all = lines.str();
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 1) << all;
}

INSTANTIATE_TEST_SUITE_P(Errors, FileLockWithoutLocks, testing::Values(ENOLCK, ENOSYS, EOPNOTSUPP));

TEST(FileLock, AFileThatCannotBeMadeIsTheUsersToMend) {
  const TemporaryFolder folder;
  EXPECT_THROW(FileLock::take(folder.path("none/lock"), "x"), UserError);
  EXPECT_THROW(FileLock::wait(folder.path("none/lock")), UserError);
}

}  // namespace
}  // namespace longreach
