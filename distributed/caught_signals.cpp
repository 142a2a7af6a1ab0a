// A handler may do little: it writes each signal to a pipe.
#include "distributed/caught_signals.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <iterator>

#include "core/error.h"
#include "core/promise.h"

namespace longreach {
namespace {

constexpr int kSignals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD, SIGPIPE};
struct sigaction found[std::size(kSignals)];
volatile std::sig_atomic_t write_end = -1;

void on_signal(int number, siginfo_t* info, void*) {
  const int before = errno;
  const CaughtSignal caught{number, info->si_pid};
  // Full: thousands are waiting to be read, and one more says nothing new.
  if (::write(write_end, &caught, sizeof caught) < 0) errno = before;
}

}  // namespace

CaughtSignals::CaughtSignals() {
  promise(write_end < 0, "one catches signals at a time");
  int ends[2];
  check<Error>(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0, "cannot make a pipe: ", std::strerror(errno));
  read_end_ = ends[0];
  write_end = ends[1];
  for (size_t i = 0; i < std::size(kSignals); ++i) {
    ::sigaction(kSignals[i], nullptr, &found[i]);
    if (kSignals[i] == SIGHUP && found[i].sa_handler == SIG_IGN) continue;
    struct sigaction action {};
    action.sa_flags = SA_RESTART | SA_NOCLDSTOP | SA_SIGINFO;
    action.sa_sigaction = on_signal;
    sigfillset(&action.sa_mask);  // one after the other, so that events keep their order
    if (kSignals[i] == SIGPIPE) action.sa_handler = SIG_IGN, action.sa_flags = 0;
    ::sigaction(kSignals[i], &action, nullptr);
  }
}

CaughtSignals::~CaughtSignals() {
  forget();
  ::close(write_end);
  ::close(read_end_);
  write_end = -1;
}

void CaughtSignals::forget() const {
  for (size_t i = 0; i < std::size(kSignals); ++i) ::sigaction(kSignals[i], &found[i], nullptr);
}

std::vector<CaughtSignal> CaughtSignals::wait(int milliseconds) {
  std::vector<CaughtSignal> all;
  pollfd readable{read_end_, POLLIN, 0};
  ::poll(&readable, 1, milliseconds);
  for (CaughtSignal caught; ::read(read_end_, &caught, sizeof caught) == sizeof caught;)
    all.push_back(caught);
  return all;
}

}  // namespace longreach
