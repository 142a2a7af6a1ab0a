// The ranks that train one run together: how they meet, what they must agree on, and who does what of a step.
#pragma once
#include <cstdint>
#include <string>

#include "distributed/agreement.h"
#include "distributed/environment.h"
#include "distributed/mesh.h"
#include "train/run_config.h"

namespace longreach {

// Intra-op threads of a rank: as many as asked for, or its share of what this machine's ranks have (asked 0).
int threads_of_rank(const Environment& environment, int64_t asked);

// Throws ConfigError when the degrees of [parallel] do not give so many ranks.
ParallelDegrees degrees_of(const ParallelConfig& config, int64_t world);
// The least number of ranks that the degrees of [parallel] allow.
int64_t fewest_ranks(const ParallelConfig& config);

struct Ranks {
  Environment environment;
  Mesh mesh;  // all null: one rank

  // Writes files, and speaks to the user.
  bool first() const { return environment.rank == 0; }
  const Group& world() const { return mesh.world; }
};

ContextMethod context_method(const RunConfig& config);

// Throws ConfigError naming kind and numbers when ranks are to share out heads of which a layer has fewer.
void expect_heads_for_all(const RunConfig& config, int64_t context_ranks);

// The exchange of all ranks, null where there is one: over TCP, and over NCCL for tensors on the device
// "cuda". Throws RankError when ranks do not come within that time, UserError where the plug-in of CUDA has
// no exchange.
Group join_world(const Environment& environment, const CommConfig& config, std::chrono::seconds patience,
                 const std::string& device = "cpu");

// One rank where nobody started more. Throws ConfigError when a fault is one of a rank that is not there, a
// layer has fewer key heads than ranks that are to share them out, ranks differ in `versions` of the program
// or in a key of the config (threads and faults may), or the degrees of [parallel] do not give so many ranks;
// RankError when ranks do not come within comm.init_timeout_seconds; what join_world throws.
Ranks join_ranks(const Environment& environment, const RunConfig& config, const std::string& versions);

// Throws ConfigError on all ranks naming the first thing that differs between them and both values. `what` is
// the same on all ranks: what `own`, one "NAME: VALUE" a line, says.
void expect_same_on_all(const Ranks& ranks, const std::string& own, std::string_view what);

// Between steps.
struct StepAgreement {
  int signal = 0;  // by which any rank has been asked to stop (signals.h), the largest of several; 0: none
  bool saving = false;  // a rank's part of a checkpoint is not on the disk yet, or a rank stops
};
// All ranks are asked to stop from then on. saving: of this rank.
StepAgreement agree_on_step(const Ranks& ranks, bool saving);

// Which micro-batches of a step a rank trains: first, first + every, ... below micro_batches. Micro-batch m
// of step s holds the samples from (s micro_batches + m) rows on, whoever trains it: the number of ranks
// changes nothing in what a step sees.
struct StepPlan {
  int64_t micro_batches = 1;  // of the step, over all ranks
  int64_t first = 0, every = 1;
};

// Throws ConfigError when training.global_batch_size is no multiple of batch_size x data ranks.
StepPlan step_plan(const TrainingConfig& training, const Group& data);

}  // namespace longreach
