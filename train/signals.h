// SIGTERM, SIGINT, SIGHUP and SIGUSR1 ask a run to write a checkpoint and leave. A second SIGTERM or SIGINT ends the
// program at once.
#pragma once

namespace longreach {

// From now on. `nohup` is obeyed: a SIGHUP that was ignored stays ignored.
void watch_stop_signals();
// As watch_stop_signals() found them.
void forget_stop_signals();
// The first signal that asked since watch_stop_signals(), or 0.
int stop_signal();
inline bool stop_requested() { return stop_signal() != 0; }

}  // namespace longreach
