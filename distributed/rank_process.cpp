// fork and exec; posix_spawn knows no PR_SET_PDEATHSIG.
#include "distributed/rank_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "core/error.h"
#include "core/exec_words.h"

namespace longreach {
namespace {

// All that the child needs, made before it is there: other threads may hold the locks of malloc.
struct Prepared {
  pid_t launcher;
  char* const* command;
  char* const* environment;
  int output, errors, failure;
  sigset_t mask;
};

// Between fork and exec: nothing but system calls.
[[noreturn]] void become_rank(const Prepared& prepared, const CaughtSignals& caught) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != prepared.launcher) ::_exit(127);  // it ended before that was asked for
  ::setpgid(0, 0);
  caught.forget();
  // A group that is not the terminal's would be stopped when it reads there or, where `stty tostop` is set,
  // writes.
  std::signal(SIGTTIN, SIG_IGN);
  std::signal(SIGTTOU, SIG_IGN);
  if (prepared.output >= 0) {
    ::dup2(::open("/dev/null", O_RDONLY | O_CLOEXEC), STDIN_FILENO);
    ::dup2(prepared.output, STDOUT_FILENO);
    ::dup2(prepared.errors, STDERR_FILENO);
  }
  ::sigprocmask(SIG_SETMASK, &prepared.mask, nullptr);
  ::execve(prepared.command[0], prepared.command, prepared.environment);
  const int reason = errno;
  [[maybe_unused]] const ssize_t told = ::write(prepared.failure, &reason, sizeof reason);
  ::_exit(127);
}

// The errno of an exec that failed, or 0.
int failure_of_exec(int pipe) {
  int reason = 0;
  while (::read(pipe, &reason, sizeof reason) < 0 && errno == EINTR) {
  }
  return reason;
}

}  // namespace

pid_t start_rank(const RankStart& start, const CaughtSignals& caught) {
  std::vector<std::string> words = start.command, settings = environment_with(start.environment);
  const auto command = exec_pointers(words), environment = exec_pointers(settings);
  int exec[2];
  check<Error>(::pipe2(exec, O_CLOEXEC) == 0, "cannot make a pipe: ", std::strerror(errno));
  Prepared prepared{::getpid(), command.data(), environment.data(), start.output, start.errors, exec[1], {}};
  sigset_t all;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all,
                    &prepared.mask);  // a handler in the child would speak for the launcher
  const pid_t child = ::fork();
  if (child == 0) become_rank(prepared, caught);
  int reason = errno;
  ::pthread_sigmask(SIG_SETMASK, &prepared.mask, nullptr);
  ::close(exec[1]);
  if (child > 0 && (reason = failure_of_exec(exec[0])) != 0) ::waitpid(child, nullptr, 0);
  ::close(exec[0]);
  check<Error>(child > 0 && reason == 0, one_line(words[0]), ": cannot be started: ", std::strerror(reason));
  return child;
}

}  // namespace longreach
