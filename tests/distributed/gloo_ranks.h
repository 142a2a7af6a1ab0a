// Ranks over Gloo as threads of the test, each with connections of its own: what processes do, without them.
#pragma once
#include <cstdlib>
#include <functional>

#include "distributed/agreement.h"
#include "distributed/gloo.h"
#include "distributed/threads.h"

namespace longreach::test {

// Rethrows the error of the rank that failed first.
inline void run_gloo_ranks(int size, const std::function<void(const Group&)>& body,
                           const CommConfig& config = {}) {
  setenv("TORCH_FR_BUFFER_SIZE", "0", 1);  // c10d's flight recorder writes to one map from all threads
  const RendezvousServer server;
  run_threads(size, [&](int rank) {
    const Environment environment{.rank = rank,
                                  .world = size,
                                  .local_rank = rank,
                                  .local_world = size,
                                  .master_host = "127.0.0.1",
                                  .master_port = server.port(),
                                  .store_is_held = true};
    const auto rendezvous = std::make_shared<Rendezvous>(environment, std::chrono::seconds(60));
    body(gloo_communicator(rendezvous, config));
  });
}

}  // namespace longreach::test
