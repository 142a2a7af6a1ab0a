// Ranks as threads of one process: for tests, and for what one process can show of many.
#pragma once
#include <functional>
#include <memory>

#include "distributed/communicator.h"

namespace longreach {

// Runs `body` on `size` threads, each with its communicator and one thread of its own for operators. Rethrows
// the error of the rank that failed first; it ends the waits of the others.
void run_ranks(int size, const std::function<void(const std::shared_ptr<Communicator>&)>& body,
               const CommConfig& config = {});

}  // namespace longreach
