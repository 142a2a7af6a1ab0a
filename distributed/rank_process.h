// One rank as a child process.
#pragma once
#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "distributed/caught_signals.h"

namespace longreach {

struct RankStart {
  // command[0]: the program's path.
  std::vector<std::string> command;
  std::vector<std::pair<std::string, std::string>> environment;
  // For its standard output and standard error; then its standard input is empty. -1: it keeps all three of
  // ours.
  int output = -1, errors = -1;
};

// Starts a process that is killed when the calling thread ends, and to which signals do what they did
// before `caught`. It has a process group of its own: Ctrl-C, and who signals our group (`timeout`), reach
// the launcher alone, which forwards, so that no rank is asked twice. Throws Error when it cannot be
// started.
pid_t start_rank(const RankStart& start, const CaughtSignals& caught);

}  // namespace longreach
