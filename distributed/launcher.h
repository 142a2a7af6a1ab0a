// N copies of a program as the ranks of a job on this machine: started, watched, ended together, started
// again.
#pragma once
#include <chrono>
#include <string>
#include <vector>

namespace longreach {

struct LaunchOptions {
  int ranks = 1, max_restarts = 0;
  // Of the rendezvous store at 127.0.0.1, which the caller holds.
  int port = 0;
  // command[0]: the program's path.
  std::vector<std::string> command;
  // How long ranks have, once one has failed, to end by themselves and say whom they miss; then they get
  // SIGTERM.
  std::chrono::milliseconds patience{5000};
  // From SIGTERM, or the second one of the user's, to SIGKILL.
  std::chrono::milliseconds last_patience{10000};
};

// Returns when all ranks have ended, and no restart is due. They find who they are in the variables of
// environment.h, and are killed when the calling thread ends. Rank 0 has our standard streams; what the
// others write comes line by line on standard error behind "[rank N] ", and they read nothing. Their lines
// "error: ..." come when all have ended; of ranks that end with code 2, the user's to mend, the first one's.
//
// SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 are forwarded to all; a SIGTERM or SIGINT within a second of
// the first is the same wish (`timeout` signals twice), a later one also begins `last_patience`.
//
// A rank fails when it ends with a code that is neither 0 nor 128 + a signal that asks a run to stop. The
// first to fail is named on standard error when all have ended, unless all end with code 2, and its code is
// returned (128 + N of one that signal N killed). Then all begin anew, at most `max_restarts` times, unless
// the code is 2, the user's to mend, or somebody has stopped the run. Else the code is that of a rank that
// was stopped, or 0.
//
// Throws Error when a rank cannot be started.
int launch(const LaunchOptions& options);

}  // namespace longreach
