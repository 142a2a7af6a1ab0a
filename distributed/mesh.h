// The groups that a rank belongs to. World = replicate x shard x context, context innermost: neighbouring
// ranks share one sequence.
#pragma once
#include <cstdint>
#include <memory>

#include "distributed/communicator.h"

namespace longreach {

struct ParallelDegrees {
  int64_t replicate = 1, shard = 1, context = 1;
};

// A group of one is null.
struct Mesh {
  std::shared_ptr<Communicator> world;
  std::shared_ptr<Communicator> context;    // share one sequence
  std::shared_ptr<Communicator> data;       // replicate x shard: train different micro-batches
  std::shared_ptr<Communicator> shard;      // shard x context: share the model's state
  std::shared_ptr<Communicator> replicate;  // hold the same part of it
};

// The degree -1, at most one of them, is what the others leave. Throws ConfigError with all four numbers
// unless their product is `world`.
ParallelDegrees resolve(const ParallelDegrees& degrees, int64_t world);

// Called by all ranks of `world`, which may be null: one rank.
Mesh make_mesh(const std::shared_ptr<Communicator>& world, const ParallelDegrees& degrees);

// This rank's number in a group and how many it has; 0 of 1 where there is none.
int64_t rank_in(const std::shared_ptr<Communicator>& group);
int64_t size_of(const std::shared_ptr<Communicator>& group);

}  // namespace longreach
