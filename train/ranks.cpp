#include "train/ranks.h"

#include <algorithm>
#include <sstream>

#include "distributed/gloo.h"
#include "distributed/nccl.h"
#include "distributed/rendezvous.h"
#include "layers/ops/cpu/parallel.h"
#include "layers/ops/cuda/backend.h"
#include "train/signals.h"

namespace longreach {
namespace {

using std::chrono::seconds;

CommConfig comm_config(const RunConfig& config) {
  return {.timeout = seconds(config.comm.train_timeout_seconds), .check = config.comm.check};
}

std::vector<std::string> lines_of(const std::string& written) {
  std::vector<std::string> lines;
  std::istringstream in(written);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::string line_or_nothing(const std::vector<std::string>& lines, size_t i) {
  return i < lines.size() ? one_line(lines[i], 200) : "nothing";
}

// Every key that ranks must have alike, a line each.
std::string shared_keys(RunConfig config) {
  config.training.threads = 0;
  config.fault = {};
  std::string lines;
  for (const auto& row : help_of(fields_of(config))) lines += text(row.key, " = ", row.default_value, "\n");
  return lines;
}

}  // namespace

ContextMethod context_method(const RunConfig& config) {
  const std::string& name = config.parallel.context_parallel_method;
  return name == "heads"  ? ContextMethod::heads
         : name == "auto" ? ContextMethod::automatic
                          : ContextMethod::fetch;
}

void expect_heads_for_all(const RunConfig& config, int64_t ranks) {
  if (context_method(config) != ContextMethod::heads) return;
  const ModelConfig& model = config.model;
  const int64_t kv_heads =
      model.num_key_value_heads == 0 ? model.num_attention_heads : model.num_key_value_heads;
  for (const AttentionEntry& entry : model.attention) {
    const int64_t heads = key_heads(entry.config, model.num_attention_heads, kv_heads);
    check<ConfigError>(heads >= ranks, "parallel.context_parallel_method = \"heads\": `", entry.kind(),
                       "` has ", heads, " key heads for parallel.context_parallel_degree = ", ranks,
                       ", expected at least one for each rank; use \"fetch\" or \"auto\"");
  }
}

int threads_of_rank(const Environment& environment, int64_t asked) {
  return asked > 0 ? static_cast<int>(asked) : std::max(1, num_threads() / environment.local_world);
}

ParallelDegrees degrees_of(const ParallelConfig& config, int64_t world) {
  return resolve({.replicate = config.data_parallel_replicate_degree,
                  .shard = config.data_parallel_shard_degree,
                  .context = config.context_parallel_degree},
                 world);
}

int64_t fewest_ranks(const ParallelConfig& config) {
  int64_t ranks = 1;
  for (const int64_t degree : {config.data_parallel_replicate_degree, config.data_parallel_shard_degree,
                               config.context_parallel_degree})
    ranks *= std::max<int64_t>(degree, 1);
  return ranks;
}

Group join_world(const Environment& environment, const CommConfig& config, seconds patience,
                 const std::string& device) {
  if (environment.world == 1) return nullptr;
  const auto rendezvous = std::make_shared<Rendezvous>(environment, patience);
  if (device == "cpu") return gloo_communicator(rendezvous, config);
  const auto with_nccl = reinterpret_cast<MakeNcclCommunicator>(cuda::exported(kMakeNcclCommunicator));
  const Group host = gloo_communicator(rendezvous, {.timeout = config.timeout});
  return Group(with_nccl(rendezvous, host, config));
}

Ranks join_ranks(const Environment& environment, const RunConfig& config, const std::string& versions) {
  expect_ranks_of(config.fault, environment.world);
  Ranks ranks{.environment = environment};
  ranks.mesh.world = join_world(environment, comm_config(config), seconds(config.comm.init_timeout_seconds),
                                config.parallel.device);
  expect_same_on_all(ranks, versions, "their versions");
  expect_same_on_all(ranks, shared_keys(config), "their config");
  // Ranks that differ in these would not find each other again in smaller groups.
  const ParallelDegrees degrees = degrees_of(config.parallel, environment.world);
  expect_heads_for_all(config, degrees.context);
  ranks.mesh = make_mesh(ranks.world(), degrees);
  ranks.mesh.heads = head_groups(ranks.mesh.context, context_method(config));
  return ranks;
}

void expect_same_on_all(const Ranks& ranks, const std::string& own, std::string_view what) {
  const std::vector<std::string> all = gather(ranks.world(), own, "start");
  const std::vector<std::string> first = lines_of(all[0]);
  for (size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    const std::vector<std::string> other = lines_of(all[rank]);
    size_t line = 0;
    while (line < first.size() && line < other.size() && first[line] == other[line]) ++line;
    throw ConfigError(text("ranks differ in ", what, ": rank 0 has ", line_or_nothing(first, line), ", rank ",
                           rank, " has ", line_or_nothing(other, line)));
  }
}

StepAgreement agree_on_step(const Ranks& ranks, bool saving) {
  const int own = stop_signal();
  const int64_t said = own > 0 ? own + 1 : static_cast<int64_t>(saving);  // who stops waits for saves anyway
  const int64_t largest = largest_over(ranks.world(), said, "step");
  const int signal = largest > 1 ? static_cast<int>(largest) - 1 : 0;
  if (signal != 0 && !stop_requested()) request_stop(signal);
  return {.signal = signal, .saving = largest > 0};
}

StepPlan step_plan(const TrainingConfig& training, const Group& data) {
  const int64_t ranks = size_of(data), together = training.batch_size * ranks;
  int64_t micro_batches = training.gradient_accumulation_steps * ranks;
  if (training.global_batch_size > 0) {
    check<ConfigError>(training.global_batch_size % together == 0,
                       "training.global_batch_size = ", training.global_batch_size,
                       ", expected a multiple of training.batch_size x data ranks = ", training.batch_size,
                       " x ", ranks);
    micro_batches = training.global_batch_size / training.batch_size;
    check<ConfigError>(training.gradient_accumulation_steps == 1 ||
                           training.gradient_accumulation_steps * together == training.global_batch_size,
                       "training.gradient_accumulation_steps = ", training.gradient_accumulation_steps,
                       " contradicts training.global_batch_size = ", training.global_batch_size,
                       ", which makes ", training.global_batch_size / together,
                       " of batch_size x data ranks = ", training.batch_size, " x ", ranks, "; leave it out");
  }
  return {.micro_batches = micro_batches, .first = rank_in(data), .every = ranks};
}

}  // namespace longreach
