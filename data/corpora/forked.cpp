// fork(2), a pipe for the answer, limits, and what the end of a process means.
#include "data/corpora/forked.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <mutex>
#include <new>
#include <optional>
#include <system_error>

namespace longreach::data {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kFaults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS, SIGXCPU};
constexpr char kDone = 'd', kDamaged = 'b', kDataError = 'e', kNoMemory = 'm', kOther = 'o';

std::string name_of(int error) { return std::generic_category().message(error); }

int64_t memory_now() {
  std::ifstream file("/proc/self/statm");
  int64_t pages = 0;
  return file >> pages ? pages * ::sysconf(_SC_PAGESIZE) : 0;
}

void lower_limit(int which, int64_t value) {
  rlimit limit{};
  ::getrlimit(static_cast<__rlimit_resource>(which), &limit);
  const rlim_t hard = std::min<rlim_t>(limit.rlim_max, static_cast<rlim_t>(value) + (which == RLIMIT_CPU));
  limit = {std::min<rlim_t>({limit.rlim_cur, static_cast<rlim_t>(value), hard}), hard};
  ::setrlimit(static_cast<__rlimit_resource>(which), &limit);
}

// Faults end the copy as they would end any program (a handler of this process would run in it); signals
// meant for the process are not the copy's business.
void default_faults() {
  sigset_t faults;
  sigemptyset(&faults);
  for (const int fault : kFaults) {
    ::signal(fault, SIG_DFL);
    sigaddset(&faults, fault);
  }
  ::sigprocmask(SIG_UNBLOCK, &faults, nullptr);
}

void write_whole(int descriptor, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t wrote = ::write(descriptor, text.data() + at, text.size() - at);
    if (wrote < 0 && errno != EINTR) ::_exit(1);
    at += static_cast<size_t>(std::max<ssize_t>(wrote, 0));
  }
}

std::string answer_of(const std::function<std::string()>& work) {
  try {
    return kDone + work();
  } catch (const DamagedFile& error) {
    return std::string(1, kDamaged) + error.what();
  } catch (const DataError& error) {
    return std::string(1, kDataError) + error.what();
  } catch (const std::bad_alloc&) {
    return std::string(1, kNoMemory);
  } catch (const std::exception& error) {
    return std::string(1, kOther) + error.what();
  }
}

[[noreturn]] void be_the_copy(int answers, const std::function<std::string()>& work, const WorkLimits& limits,
                              int64_t memory, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  default_faults();
  const int nowhere = ::open("/dev/null", O_RDWR | O_CLOEXEC);  // C libraries complain aloud when they abort
  if (nowhere >= 0) {
    ::dup2(nowhere, STDOUT_FILENO);
    ::dup2(nowhere, STDERR_FILENO);
  }
  lower_limit(RLIMIT_CORE, 0);
  if (limits.cpu_seconds > 0) lower_limit(RLIMIT_CPU, limits.cpu_seconds);
  if (limits.memory_bytes > 0 && memory > 0) lower_limit(RLIMIT_AS, memory + limits.memory_bytes);
  write_whole(answers, answer_of(work));
  ::_exit(0);
}

struct Copy {
  pid_t process = -1;
  int answers = -1;
};

// One fork at a time: no copy keeps another's pipe open.
Copy start(const std::function<std::string()>& work, const WorkLimits& limits) {
  static std::mutex starting;
  const std::lock_guard guard(starting);
  int ends[2];
  check<Error>(::pipe2(ends, O_CLOEXEC) == 0, "pipe: ", name_of(errno));
  const int64_t memory = memory_now();
  const pid_t parent = ::getpid();
  sigset_t all, before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t process = ::fork();
  if (process == 0) be_the_copy(ends[1], work, limits, memory, parent);
  const int error = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::close(ends[1]);
  if (process < 0) ::close(ends[0]);
  check<Error>(process > 0, "no process can be started: ", name_of(error));
  return {process, ends[0]};
}

// All that the copy says; nothing when it has not ended by `deadline`.
std::optional<std::string> listen(int answers, std::optional<Clock::time_point> deadline) {
  std::string answer;
  char block[1 << 16];
  while (true) {
    int wait = -1;
    if (deadline) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(*deadline - Clock::now());
      wait = static_cast<int>(std::max<int64_t>(left.count(), 0));
    }
    pollfd ready{answers, POLLIN, 0};
    const int events = ::poll(&ready, 1, wait);
    if (events < 0 && errno == EINTR) continue;
    if (events <= 0) return std::nullopt;
    const ssize_t got = ::read(answers, block, sizeof block);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return answer;
    answer.append(block, static_cast<size_t>(got));
  }
}

// The copy's wait status; 0 when somebody else in this program has waited for it already.
int status_of(pid_t process) {
  int status = 0;
  while (::waitpid(process, &status, 0) < 0)
    if (errno != EINTR) return 0;
  return status;
}

[[noreturn]] void throw_death(int status, const WorkLimits& limits) {
  const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  if (signal == SIGXCPU)
    throw WorkDied(text("did not end within ", limits.cpu_seconds, " s of processor time"), true);
  if (std::find(std::begin(kFaults), std::end(kFaults), signal) != std::end(kFaults))
    throw WorkDied(text("crashed (", ::strsignal(signal), ")"), true);
  throw WorkDied(signal == 0 ? std::string("ended without a word") : text("was ended by signal ", signal),
                 false);
}

}  // namespace

std::string run_forked(const std::function<std::string()>& work, const WorkLimits& limits) {
  const Copy copy = start(work, limits);
  std::optional<Clock::time_point> deadline;
  // A loaded machine or a slow file system is no fault of the work: the clock on the wall stops what waits
  // forever.
  if (limits.cpu_seconds > 0) deadline = Clock::now() + std::chrono::seconds(120 + 10 * limits.cpu_seconds);
  const auto answer = listen(copy.answers, deadline);
  ::close(copy.answers);
  if (!answer) ::kill(copy.process, SIGKILL);
  const int status = status_of(copy.process);
  if (!answer) throw WorkDied("waited too long", false);
  if (status != 0 || answer->empty()) throw_death(status, limits);
  std::string rest = answer->substr(1);
  switch (answer->front()) {
    case kDone:
      return rest;
    case kDamaged:
      throw DamagedFile(rest);
    case kDataError:
      throw DataError(rest);
    case kNoMemory:
      throw std::bad_alloc();
    default:
      throw Error(rest);
  }
}

}  // namespace longreach::data
