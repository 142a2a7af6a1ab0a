// Ranks as processes that exchange over TCP: c10d's Gloo, for tensors on the CPU.
#pragma once
#include <memory>

#include "distributed/communicator.h"
#include "distributed/rendezvous.h"

namespace longreach {

// The group of all ranks. Throws RankError when they can't be reached.
std::shared_ptr<Communicator> gloo_communicator(std::shared_ptr<Rendezvous> rendezvous,
                                                const CommConfig& config);

}  // namespace longreach
