#include "train/bench/scaling.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/exec_words.h"
#include "core/temporary_folder.h"
#include "train/bench/child_process.h"
#include "train/bench/clock.h"
#include "train/bench/statistics.h"

namespace longreach::bench {
namespace {

// The first steps find cold caches and memory that the system has not lent yet.
constexpr size_t kWarmSteps = 2;

struct Run {
  double tokens_per_second = 0, waited = 0, bytes = 0, start_seconds = 0;
};

std::vector<std::string> command_of(const ScalingSetting& setting, int ranks, const std::string& folder) {
  std::vector<std::string> words = {this_program()};
  if (ranks > 1) words.insert(words.end(), {"launch", "--nproc", text(ranks)});
  words.insert(words.end(), {"train", setting.config, "--job.dump_folder", folder, "--training.threads",
                             text(setting.threads), "--training.steps", text(setting.steps),
                             "--checkpoint.enable_checkpoint", "false", "--validation.final", "false",
                             "--validation.freq", "0", "--sample.tokens", "0", "--metrics.plot", "false"});
  if (setting.rows > 0)
    words.insert(words.end(), {"--training.global_batch_size", text(setting.rows),
                               "--training.gradient_accumulation_steps", "1"});
  return words;
}

// All but the first steps of a run's metrics.
Run read_run(const std::string& folder, double wall_seconds) {
  std::ifstream file(folder + "/metrics.jsonl");
  std::vector<double> rates, waited, bytes;
  double all_steps = 0;
  for (std::string line; std::getline(file, line);) {
    const auto step = nlohmann::json::parse(line);
    const double seconds = step.at("step_seconds").get<double>();
    all_steps += seconds;
    rates.push_back(step.at("tokens_per_second").get<double>());
    waited.push_back(step.value("comm_seconds", 0.0) / seconds);
    bytes.push_back(step.value("comm_bytes", 0.0));
  }
  check<UserError>(rates.size() > kWarmSteps, "bench scaling: a run of ", rates.size(),
                   " steps; expected more than ", kWarmSteps);
  const auto warm = [](std::vector<double>& all) {
    all.erase(all.begin(), all.begin() + kWarmSteps);
    return median(all);
  };
  return {.tokens_per_second = warm(rates),
          .waited = warm(waited),
          .bytes = warm(bytes),
          .start_seconds = wall_seconds - all_steps};
}

Run run_once(const ScalingSetting& setting, int ranks, const std::string& folder) {
  const Timing start = now();
  ChildProcess child(command_of(setting, ranks, folder));
  std::string last;
  for (std::string line; child.read_line(line);) last = line;
  const int code = child.wait();
  check<UserError>(code == 0, "bench scaling: ", ranks, " ranks ended with code ", code, ": ",
                   one_line(last));
  return read_run(folder, since(start).wall);
}

template <class Value>
double median_of(const std::vector<Run>& runs, const Value& value) {
  std::vector<double> values;
  for (const Run& run : runs) values.push_back(value(run));
  return median(values);
}

ScalingRow row_of(int ranks, const std::vector<Run>& runs, const std::vector<Run>& first) {
  std::vector<double> ratios, starts;
  for (size_t round = 0; round < runs.size(); ++round) {
    ratios.push_back(runs[round].tokens_per_second / first[round].tokens_per_second);
    starts.push_back(runs[round].start_seconds);
  }
  return {.ranks = ranks,
          .tokens_per_second = median_of(runs, [](const Run& run) { return run.tokens_per_second; }),
          .ratio = median(ratios),
          .waited = median_of(runs, [](const Run& run) { return run.waited; }),
          .bytes = median_of(runs, [](const Run& run) { return run.bytes; }),
          .start_seconds = minimum(starts)};
}

}  // namespace

std::vector<ScalingRow> measure_scaling(const ScalingSetting& setting) {
  std::map<int, std::vector<Run>> runs;
  for (int round = 0; round < setting.rounds; ++round)
    for (const int ranks : setting.ranks) {
      const TemporaryFolder folder;
      runs[ranks].push_back(run_once(setting, ranks, folder.path("run")));
    }
  std::vector<ScalingRow> rows;
  for (const int ranks : setting.ranks) rows.push_back(row_of(ranks, runs[ranks], runs[setting.ranks[0]]));
  return rows;
}

}  // namespace longreach::bench
