// `longreach bench scaling` and, on several ranks, `longreach bench exchanges`.
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>

#include "core/error.h"
#include "distributed/gloo.h"
#include "train/bench/clock.h"
#include "train/bench/gloo_peer.h"
#include "train/bench/report.h"
#include "train/bench/scaling.h"
#include "train/bench/statistics.h"
#include "train/program/command_line.h"
#include "train/program/verbs.h"
#include "train/run_config.h"

namespace longreach {
namespace {

using namespace bench;

int64_t rows_of(const std::string& config, int ranks) {
  const TrainingConfig training = read_run_config(config, {}).training;
  return training.batch_size * training.gradient_accumulation_steps * ranks;
}

void print_row(const ScalingRow& row) {
  std::printf("%5d %10.0f %8.2fx %8.1f%% %12.1f %9.1f\n", row.ranks, row.tokens_per_second, row.ratio,
              100 * row.waited, row.bytes / (1 << 20), row.start_seconds);
}

nlohmann::json json_of(const ScalingRow& row, const char* name) {
  return {{"name", name},
          {"ranks", row.ranks},
          {"ratio", row.ratio},
          {"tokens_per_second", row.tokens_per_second},
          {"bytes", row.bytes},
          {"waited", row.waited},
          {"start_seconds", row.start_seconds}};
}

// Seconds of one call, the slower rank's: both wait for the other.
template <class Call>
double seconds_of_call(Communicator& group, const Call& call) {
  group.barrier("bench");
  const Timing start = now();
  call();
  return since(start).wall;
}

struct ExchangeRow {
  std::string name;
  int64_t bytes = 0;
  std::vector<double> ours, peer;
};

ExchangeRow measure_exchange(Communicator& group, GlooPeer& peer, const std::string& name, int64_t bytes,
                             int rounds) {
  const int64_t elements = bytes / 4 / group.size() * group.size();
  const at::Tensor x = at::ones({elements}), part = at::empty({elements / group.size()});
  ExchangeRow row{.name = name, .bytes = bytes};
  for (int round = -1; round < rounds; ++round) {
    const bool sums = name == "all_reduce";
    const double ours = seconds_of_call(group, [&] {
      if (sums)
        group.all_reduce(x, "bench");
      else
        group.reduce_scatter(x, "bench");
    });
    const double theirs = seconds_of_call(group, [&] {
      if (sums)
        peer.all_reduce(x);
      else
        peer.reduce_scatter(part, x);
    });
    x.fill_(1);
    if (round < 0) continue;  // warm
    row.ours.push_back(ours);
    row.peer.push_back(theirs);
  }
  return row;
}

}  // namespace

int bench_scaling(const Arguments& arguments) {
  if (std::ranges::find(arguments, "--context") != arguments.end()) return bench_context_scaling(arguments);
  ScalingSetting setting{.config = "configs/quickstart.toml"};
  std::string json_path;
  bool strong = false, data = true, context = false;
  CLI::App app("Tokens a second by number of ranks on this machine, alternated in one run", "bench scaling");
  app.add_option("--config", setting.config, "what is trained")->capture_default_str();
  app.add_option("--ranks", setting.ranks, "numbers of ranks; ratios are to the first")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--threads", setting.threads, "threads of a rank")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--steps", setting.steps, "steps of a run; the first two are not counted")
      ->check(CLI::Range(3, 1000000))
      ->capture_default_str();
  app.add_option("--rounds", setting.rounds, "alternations")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_flag("--strong", strong, "the same rows a step on any number of ranks; else as many rows a rank");
  app.add_flag("--data", data, "each rank has rows of its own, as without this flag");
  app.add_flag("--context", context, "ranks share one row of one layer; see bench scaling --context --help");
  app.add_option("--json", json_path, "write machine and rows to this file; `longreach plot` draws it");
  if (!parse_arguments(app, arguments)) return 0;
  if (strong)
    setting.rows = rows_of(setting.config, *std::max_element(setting.ranks.begin(), setting.ranks.end()));
  const Machine machine = this_machine();
  print_machine(std::cout, machine);
  const double load_before = load_average();
  const std::vector<ScalingRow> rows = measure_scaling(setting);
  std::printf("%5s %10s %9s %9s %12s %9s\n", "ranks", "tok/s", "ratio", "waiting", "MiB a step", "start s");
  nlohmann::json json = {{"cpu", machine.cpu}, {"rows", nlohmann::json::array()}};
  for (const ScalingRow& row : rows) {
    print_row(row);
    json["rows"].push_back(json_of(row, strong ? "as many rows a step" : "as many rows a rank"));
  }
  std::printf("load  %.2f before, %.2f after; %d thread(s) a rank, medians of %d rounds\n", load_before,
              load_average(), setting.threads, setting.rounds);
  std::fflush(stdout);
  if (!json_path.empty()) write_json(json_path, json);
  return 0;
}

int bench_exchanges(const Arguments& arguments) {
  std::vector<int64_t> kib = {4, 4096, 16384, 65536};
  int rounds = 20;
  CLI::App app("Sums over ranks against Gloo's own, alternated; run it as `launch --nproc N bench exchanges`",
               "bench exchanges");
  app.add_option("--kib", kib, "sizes of a rank's float32 tensor, KiB")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 22))
      ->capture_default_str();
  app.add_option("--rounds", rounds, "alternations")->check(CLI::Range(1, 10000))->capture_default_str();
  if (!parse_arguments(app, arguments)) return 0;
  const Environment environment = read_environment();
  check<UserError>(environment.world > 1,
                   "bench exchanges: one rank exchanges nothing; "
                   "run `longreach launch --nproc 2 bench exchanges`");
  const auto rendezvous = std::make_shared<Rendezvous>(environment, std::chrono::seconds(60));
  const Group group = gloo_communicator(rendezvous, {});
  GlooPeer peer(*rendezvous);
  if (environment.rank == 0)
    std::printf("%-15s %9s %10s %10s %8s\n", "operation", "KiB", "ours ms", "gloo ms", "ratio");
  for (const char* name : {"all_reduce", "reduce_scatter"})
    for (const int64_t size : kib) {
      const ExchangeRow row = measure_exchange(*group, peer, name, size << 10, rounds);
      if (environment.rank != 0) continue;
      std::printf("%-15s %9lld %10.3f %10.3f %7.2fx\n", name, static_cast<long long>(size),
                  1e3 * median(row.ours), 1e3 * median(row.peer), ratio_by_pairs(row.peer, row.ours).median);
      std::fflush(stdout);
    }
  if (environment.rank == 0)
    std::printf("ratio: ours / Gloo's, median over %d rounds; less than 1 is faster\n", rounds);
  return 0;
}

}  // namespace longreach
