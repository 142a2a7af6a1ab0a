// `longreach bench train`: whole training steps against PyTorch, alternated.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

#include "core/error.h"
#include "train/bench/report.h"
#include "train/bench/training.h"
#include "train/program/command_line.h"
#include "train/program/verbs.h"

namespace longreach {
namespace {

using namespace bench;

constexpr const char* kHead = "%-8s %-8s %3s %9s %9s %6s  %-8s %9s %9s %8s %10s\n";

void print_head() {
  std::printf(kHead, "dtype", "products", "thr", "tok/s", "median", "peak", "peer", "tok/s", "median",
              "ratio", "of minima");
}

void print_training(const TrainingRow& row) {
  const TrainingSetting& s = row.setting;
  if (!row.refused.empty()) {
    std::printf("%-8s %-8s %3d  refused: %s\n", s.dtype.c_str(), row.products.c_str(), s.threads,
                one_line(row.refused).c_str());
  } else {
    const auto rate = [&](double seconds) { return seconds > 0 ? s.tokens_a_step() / seconds : 0.0; };
    std::printf("%-8s %-8s %3d %9.0f %9.0f %5.0f%%  %-8s %9.0f %9.0f %7.2fx %9.2fx\n", s.dtype.c_str(),
                row.products.c_str(), s.threads, rate(row.seconds_min), rate(row.seconds_median),
                100 * row.peak_share, s.peer.empty() ? "none" : s.peer.c_str(), rate(row.peer_seconds_min),
                rate(row.peer_seconds_median), row.ratio, row.ratio_of_minima);
  }
  std::fflush(stdout);
}

struct Options {
  TrainingSetting shape;
  std::vector<std::string> peers{"eager"}, dtypes{"float32"};
  std::vector<int> threads{1};
  std::string json_path;
};

void add_options(CLI::App& app, Options& options) {
  std::vector<std::string> peers = training_peer_names();
  peers.emplace_back("none");
  const auto count = [&](const char* name, int64_t& value, const char* help) {
    app.add_option(name, value, help)->check(CLI::Range(int64_t{1}, int64_t{1} << 24))->capture_default_str();
  };
  app.add_option("--peer", options.peers, text("peers: ", join(peers)))
      ->delimiter(',')
      ->check(CLI::IsMember(peers))
      ->capture_default_str();
  app.add_option("--dtype", options.dtypes, "float32, bfloat16")
      ->delimiter(',')
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "thread counts; a fresh process each")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  count("--layers", options.shape.layers, "decoder layers");
  count("--hidden-size", options.shape.hidden_size, "model width");
  count("--heads", options.shape.heads, "query, key and value heads");
  count("--intermediate-size", options.shape.intermediate_size, "width inside the MLP");
  count("--vocab-size", options.shape.vocab_size, "tokens known");
  count("--length", options.shape.tokens, "tokens a sequence");
  count("--batch", options.shape.batch, "sequences a step");
  app.add_option("--rounds", options.shape.rounds, "alternations of ours and the peer")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("--json", options.json_path, "write machine and rows to this file");
}

std::vector<TrainingSetting> settings_of(const Options& options) {
  std::vector<TrainingSetting> settings;
  for (const int threads : options.threads)
    for (const std::string& dtype : options.dtypes)
      for (const std::string& peer : options.peers) {
        TrainingSetting one = options.shape;
        one.threads = threads;
        one.dtype = dtype;
        one.peer = peer == "none" ? "" : peer;
        settings.push_back(one);
      }
  return settings;
}

}  // namespace

int bench_train(const Arguments& arguments) {
  Options options;
  CLI::App app("Training steps of a Llama-like decoder against PyTorch, alternated in one run",
               "bench train");
  add_options(app, options);
  if (!parse_arguments(app, arguments)) return 0;
  const TrainingSetting& shape = options.shape;
  check<UserError>(shape.hidden_size % shape.heads == 0 && shape.hidden_size / shape.heads % 2 == 0,
                   "--heads: found ", shape.heads,
                   ", expected a divisor of --hidden-size = ", shape.hidden_size,
                   " that leaves an even head dimension");
  const Machine machine = this_machine();
  print_machine(std::cout, machine);
  const double load_before = load_average();
  print_head();
  const auto rows = measure_training_in_workers(settings_of(options), print_training);
  std::printf(
      "tok/s    of the fastest step and of the median one; process CPU time at one thread, wall time at "
      "more; ratio: peer / ours, median over rounds\n");
  std::printf("load     %.2f before, %.2f after\n", load_before, load_average());
  std::fflush(stdout);
  if (!options.json_path.empty()) {
    write_json(options.json_path, nlohmann::json{{"cpu", machine.cpu}, {"rows", rows}});
    std::cout << "json     " << options.json_path << "\n";
  }
  return std::any_of(rows.begin(), rows.end(), [](const auto& row) { return !row.refused.empty(); }) ? 1 : 0;
}

}  // namespace longreach
