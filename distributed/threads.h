// Threads beside others, and ranks as threads of one process: for tests, and for what one process can show of
// many.
#pragma once
#include <functional>
#include <memory>
#include <thread>

#include "distributed/communicator.h"

namespace longreach {

// Runs `body` on `size` threads, each with its communicator and one thread of its own for operators. Rethrows
// the error of the rank that failed first; it ends the waits of the others.
void run_ranks(int size, const std::function<void(const std::shared_ptr<Communicator>&)>& body,
               const CommConfig& config = {});

// A thread for `body`, on which operators use one thread alone; it has begun.
std::thread start_thread(std::function<void()> body);

// body(0), body(1), ... each on such a thread, so that products are split alike on all; failed(number), if
// there is one, on the thread whose body threw. Rethrows the first error when all have ended.
void run_threads(int count, const std::function<void(int)>& body,
                 const std::function<void(int)>& failed = nullptr);

}  // namespace longreach
