#include "distributed/mesh.h"

#include <numeric>
#include <vector>

#include "core/error.h"

namespace longreach {
namespace {

constexpr const char* kReplicate = "parallel.data_parallel_replicate_degree";
constexpr const char* kShard = "parallel.data_parallel_shard_degree";
constexpr const char* kContext = "parallel.context_parallel_degree";

// A rank's place in the mesh, and the rank of a place.
struct Place {
  int64_t replicate, shard, context;
};

Place place_of(int64_t rank, const ParallelDegrees& d) {
  return {rank / (d.shard * d.context), rank / d.context % d.shard, rank % d.context};
}

int64_t rank_at(const Place& p, const ParallelDegrees& d) {
  return (p.replicate * d.shard + p.shard) * d.context + p.context;
}

// The ranks whose place agrees with `own` but in what is free to vary, in rising order.
std::vector<int> neighbours(const Place& own, const ParallelDegrees& d, bool replicate, bool shard,
                            bool context) {
  std::vector<int> members;
  for (int64_t rank = 0; rank < d.replicate * d.shard * d.context; ++rank) {
    const Place p = place_of(rank, d);
    const Place expected = {replicate ? p.replicate : own.replicate, shard ? p.shard : own.shard,
                            context ? p.context : own.context};
    if (rank_at(expected, d) == rank) members.push_back(static_cast<int>(rank));
  }
  return members;
}

// Where several groups have the same members they are one.
Group group(const Group& world, const std::vector<int>& members) {
  if (members.size() == 1) return nullptr;
  return static_cast<int>(members.size()) == world->size() ? world : world->split(members);
}

Group copy_of(const Group& group) {
  if (!group) return nullptr;
  std::vector<int> all;
  for (int rank = 0; rank < group->size(); ++rank) all.push_back(rank);
  return group->split(all);
}

}  // namespace

ParallelDegrees resolve(const ParallelDegrees& degrees, int64_t world) {
  ParallelDegrees result = degrees;
  int64_t product = 1;
  int64_t* free = nullptr;
  for (int64_t* degree : {&result.replicate, &result.shard, &result.context}) {
    if (*degree == -1) {
      check<ConfigError>(free == nullptr, kReplicate, " = ", degrees.replicate, ", ", kShard, " = ",
                         degrees.shard, ", ", kContext, " = ", degrees.context,
                         ": at most one of them may be -1");
      free = degree;
    } else {
      product *= *degree;
    }
  }
  if (free != nullptr && world % product == 0) {
    *free = world / product;
    product = world;
  }
  check<ConfigError>(product == world && (free == nullptr || *free > 0), kReplicate, " x ", kShard, " x ",
                     kContext, " = ", degrees.replicate, " x ", degrees.shard, " x ", degrees.context,
                     ", expected a product of ", world, ", the number of ranks (WORLD_SIZE)");
  return result;
}

Mesh make_mesh(const Group& world, const ParallelDegrees& degrees) {
  if (size_of(world) == 1) return {};
  const Place own = place_of(world->rank(), degrees);
  Mesh mesh{.world = world};
  mesh.context = group(world, neighbours(own, degrees, false, false, true));
  mesh.data = group(world, neighbours(own, degrees, true, true, false));
  mesh.shard = group(world, neighbours(own, degrees, false, true, true));
  mesh.replicate = group(world, neighbours(own, degrees, true, false, false));
  return mesh;
}

std::vector<HeadGroup> head_groups(const Group& context, ContextMethod method) {
  std::vector<HeadGroup> groups;
  if (!context || method == ContextMethod::fetch) return groups;
  const int ranks = context->size(), rank = context->rank();
  for (int neighbours = 2; neighbours < ranks && method == ContextMethod::automatic; ++neighbours) {
    if (ranks % neighbours != 0) continue;
    std::vector<int> beside(static_cast<size_t>(neighbours)), across;
    std::iota(beside.begin(), beside.end(), rank / neighbours * neighbours);
    for (int other = rank % neighbours; other < ranks; other += neighbours) across.push_back(other);
    const Group near = context->split(beside);
    groups.push_back({near, context->split(across)});
  }
  groups.push_back({context, nullptr});
  return groups;
}

Mesh own_groups(const Mesh& mesh, bool joined) {
  Mesh own{.world = copy_of(mesh.world)};
  own.shard = mesh.shard == mesh.world && joined ? own.world : copy_of(mesh.shard);
  own.replicate = mesh.replicate == mesh.world ? own.world : copy_of(mesh.replicate);
  return own;
}

Traffic take_traffic(const Mesh& mesh) {
  Traffic all;
  std::vector<Group> groups{mesh.world, mesh.context, mesh.data, mesh.shard, mesh.replicate};
  for (const HeadGroup& heads : mesh.heads)
    if (heads.neighbours != mesh.context) groups.insert(groups.end(), {heads.neighbours, heads.across});
  for (const Group& group : groups) {
    if (!group) continue;
    add(all, group->traffic());
    group->forget_traffic();
  }
  return all;
}

void add(Traffic& all, const Traffic& more) {
  for (const auto& [label, moved] : more) {
    LabelTraffic& sum = all[label];
    sum.operations += moved.operations;
    sum.bytes += moved.bytes;
    sum.seconds += moved.seconds;
  }
}

}  // namespace longreach
