#include "train/rank_checkpoint.h"

#include <set>

#include "distributed/agreement.h"
#include "train/finite.h"
#include "train/saved_model.h"

namespace longreach {
namespace {

std::vector<TensorRun> whole(const NamedTensors& tensors) {
  std::vector<TensorRun> runs;
  for (const auto& [name, tensor] : tensors)
    runs.push_back({.name = name, .shape = tensor.sizes().vec(), .values = tensor});
  return runs;
}

// Of its own runs all, and its share of the common ones.
std::vector<TensorRun> share(const RankRuns& runs, const Group& sharing) {
  const int64_t rank = rank_in(sharing), ranks = size_of(sharing);
  std::vector<TensorRun> part;
  const auto add = [&](const Run& run, int64_t begin, const at::Tensor& values) {
    const bool empty = c10::multiply_integers(run.shape) == 0;
    if (!empty || rank == 0) part.push_back({run.name, run.shape, begin, values});
  };
  for (const Run& run : runs.own) add(run, run.begin, run.values);
  for (const Run& run : runs.common) {
    const int64_t elements = run.values.numel();
    const int64_t begin = elements * rank / ranks, end = elements * (rank + 1) / ranks;
    add(run, begin, run.values.detach().reshape({-1}).narrow(0, begin, end - begin));
  }
  return part;
}

}  // namespace

CheckpointPeers peers_of(const Group& world) {
  return {.rank = rank_in(world), .ranks = size_of(world), .each = [world](const auto& work) {
            std::string own;
            on_every_rank(world, [&] { own = work(); });
            return gather(world, own, "wait");
          }};
}

RankRuns model_runs(const Transformer& model, const DataParallel& parallel) {
  RankRuns runs{.own = parallel.shares()};
  std::set<std::string> shared;
  for (const Run& run : runs.own) shared.insert(run.name);
  for (const Run& run : whole_runs(model_tensors(model)))
    if (shared.count(run.name) == 0) runs.common.push_back(run);
  return runs;
}

void read_checkpoint(const CheckpointReader& checkpoint, Transformer& model, const DataParallel& parallel,
                     AdamW& optimizer) {
  const std::vector<Run> runs = all_of(model_runs(model, parallel));
  expect_no_others(checkpoint.model(), runs, checkpoint.path());
  read_runs(checkpoint.model(), runs, checkpoint.path());
  expect_finite<CheckpointError>(runs, checkpoint.path());
  optimizer.load(checkpoint.optimizer());
  expect_finite<CheckpointError>(all_of(optimizer.state()), checkpoint.path());
}

SavedPart saved_part(const Transformer& model, const DataParallel& parallel, const AdamW& optimizer,
                     const Mesh& mesh) {
  if (!parallel.sharded())
    return {.writes = rank_in(mesh.world) == 0,
            .model = whole(model_tensors(model)),
            .optimizer = whole(optimizer.whole_state())};
  return {.version = 2,
          .rank = rank_in(mesh.shard),
          .writes = rank_in(mesh.replicate) == 0,
          .model = share(model_runs(model, parallel), mesh.shard),
          .optimizer = share(optimizer.state(), mesh.shard)};
}

}  // namespace longreach
