// Where the ranks of a job meet: a key-value store over TCP (c10d's), held by who started the ranks, or by
// rank 0.
#pragma once
#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <future>
#include <optional>
#include <string>
#include <vector>

#include "distributed/environment.h"
#include "distributed/rank_error.h"

namespace c10d {
class Store;
}

namespace longreach {

// Holds the store for ranks that it does not belong to.
class RendezvousServer {
 public:
  // port 0: any that is free. Throws ConfigError when it cannot be had.
  explicit RendezvousServer(int port = 0);
  ~RendezvousServer();
  int port() const { return port_; }

 private:
  c10::intrusive_ptr<c10d::Store> store_;
  int port_ = 0;
};

class Rendezvous {
 public:
  // Comes back when all ranks are there. Throws RankError that names those that did not come within the time,
  // ConfigError when rank 0 cannot hold the store at the port. Keys of another attempt are not seen.
  Rendezvous(const Environment& environment, std::chrono::milliseconds timeout);
  ~Rendezvous();

  const Environment& environment() const { return environment_; }

  // What whoever has lost a rank calls, and everybody who hears of it: the others and `reason`, which is that
  // of the first to call.
  struct RollCall {
    std::vector<int> missing;  // who did not answer within `patience`
    std::string reason;
  };
  // Nothing where the store is gone, or does not answer.
  std::optional<RollCall> roll_call(std::chrono::milliseconds patience, const std::string& reason);
  // Whether a rank has called the roll, or the store is gone: then nobody comes to an exchange any more. A
  // store that does not answer may do so later. Called by one thread at a time.
  bool roll_is_called();

  // For transports.
  const c10::intrusive_ptr<c10d::Store>& store() const { return store_; }
  // The address of this machine by which others reach it: that of the connection to the store.
  std::string own_address() const;

 private:
  Environment environment_;
  c10::intrusive_ptr<c10d::Store> store_;
  std::future<bool> look_;  // whether the roll is called: asked, and not yet answered
};

}  // namespace longreach
