// The groups that a rank belongs to. World = replicate x shard x context, context innermost: neighbouring
// ranks share one sequence.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "distributed/communicator.h"
#include "distributed/context_group.h"

namespace longreach {

struct ParallelDegrees {
  int64_t replicate = 1, shard = 1, context = 1;
};

struct Mesh {
  Group world;
  Group context;                 // share one sequence
  Group data;                    // replicate x shard: train different micro-batches
  Group shard;                   // shard x context: share the model's state
  Group replicate;               // hold the same part of it
  std::vector<HeadGroup> heads;  // neighbours within `context` that may share out heads
};

// The degree -1, at most one of them, is what the others leave. Throws ConfigError with all four numbers
// unless their product is `world`.
ParallelDegrees resolve(const ParallelDegrees& degrees, int64_t world);

// Called by all ranks of `world`.
Mesh make_mesh(const Group& world, const ParallelDegrees& degrees);

// The ways to share out heads that a method may take, by rising numbers of neighbours: all ranks of the
// group, or (automatic) every divisor of their number. Called by all ranks of `context`; null: none.
std::vector<HeadGroup> head_groups(const Group& context, ContextMethod method);

// World, shard and replicate anew, for a thread of their own: a group is used by one thread at a time.
// joined: shard is world, where it has the same members; else one thread may use shard while another uses the
// rest. Called by all ranks.
Mesh own_groups(const Mesh& mesh, bool joined);

// What all groups of the mesh have moved since the last call, by label.
Traffic take_traffic(const Mesh& mesh);
void add(Traffic& all, const Traffic& more);

}  // namespace longreach
