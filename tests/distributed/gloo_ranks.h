// Ranks over Gloo as threads of the test, each with connections of its own: what processes do, without them.
#pragma once
#include <cstdlib>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "distributed/agreement.h"
#include "distributed/gloo.h"

namespace longreach::test {

// Rethrows the error of the rank that failed first.
inline void run_gloo_ranks(int size, const std::function<void(const Group&)>& body,
                           const CommConfig& config = {}) {
  setenv("TORCH_FR_BUFFER_SIZE", "0", 1);  // c10d's flight recorder writes to one map from all threads
  const RendezvousServer server;
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      try {
        const Environment environment{.rank = rank,
                                      .world = size,
                                      .local_rank = rank,
                                      .local_world = size,
                                      .master_host = "127.0.0.1",
                                      .master_port = server.port(),
                                      .store_is_held = true};
        const auto rendezvous = std::make_shared<Rendezvous>(environment, std::chrono::seconds(60));
        body(gloo_communicator(rendezvous, config));
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
      }
    });
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace longreach::test
