// SIGTERM, SIGINT, SIGHUP and SIGUSR1 ask a run to write a checkpoint and leave. A second SIGTERM or SIGINT
// ends the program at once.
#pragma once

namespace longreach {

// Signals are taken by a thread of their own from here on, whatever is done with them. oneDNN's float32
// kernels keep the stack pointer in memory that is not the stack's, so that a handler's frame on their thread
// would overwrite the heap (seen: one run in five that was stopped). Call before other threads exist, which
// inherit what this blocks.
void take_stop_signals_on_a_thread();

// From now on. `nohup` is obeyed: a SIGHUP that was ignored stays ignored.
void watch_stop_signals();
// As watch_stop_signals() found them.
void forget_stop_signals();
// The first signal that asked since watch_stop_signals(), or 0.
int stop_signal();
// As if that signal had come: another rank got it.
void request_stop(int signal);
inline bool stop_requested() { return stop_signal() != 0; }

}  // namespace longreach
