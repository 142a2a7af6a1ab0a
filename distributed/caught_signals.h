// Signals as events: those that ask a launcher for something, and the ends of its children.
#pragma once
#include <sys/types.h>

#include <vector>

namespace longreach {

struct CaughtSignal {
  int number;
  // The process that sent it; of SIGCHLD, the child that ended.
  pid_t sender;
};

// From its making to its end SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2 and SIGCHLD become events and
// SIGPIPE is ignored. `nohup` is obeyed: a SIGHUP that was ignored stays ignored. One at a time.
class CaughtSignals {
 public:
  CaughtSignals();
  ~CaughtSignals();
  CaughtSignals(const CaughtSignals&) = delete;
  CaughtSignals& operator=(const CaughtSignals&) = delete;

  // Those that came, in their order, after at most so many milliseconds of waiting for the first (-1: any
  // number).
  std::vector<CaughtSignal> wait(int milliseconds);
  // What they do is again what it was before. May be called in a forked child, and makes no system call but
  // sigaction.
  void forget() const;

 private:
  int read_end_ = -1;
};

}  // namespace longreach
