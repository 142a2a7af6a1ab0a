// Work that may crash, done by a forked copy of this process: a crash, an endless loop or a claim on all
// memory ends the copy, and what the work has broken in a library's state is gone with it. A copy and not
// another program, because this is a library too: in somebody else's process there is no program to start.
// The copy has one thread, so the work must not wait for another's, nor for a lock that another thread held;
// it leaves by _exit, so that nothing of this process is flushed, closed or unlocked twice.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "core/error.h"

namespace longreach::data {

// What a file says is wrong, whoever reads it and however often: a cached file may be made anew.
struct DamagedFile : DataError {
  using DataError::DataError;
};

struct WorkLimits {
  int64_t cpu_seconds = 0;   // 0: none, and none on the clock on the wall
  int64_t memory_bytes = 0;  // more than the process has now; 0: no limit
};

// The copy died. what(): "crashed (Segmentation fault)".
struct WorkDied : Error {
  WorkDied(const std::string& how, bool by_itself) : Error(how), by_itself(by_itself) {}
  bool by_itself;  // by a fault or a limit of its own; false: something outside ended or stopped it
};

// What `work` returned. A DamagedFile, DataError or other exception thrown by it is thrown here with its
// message. Throws WorkDied, and Error when no process can be started.
std::string run_forked(const std::function<std::string()>& work, const WorkLimits& limits);

}  // namespace longreach::data
