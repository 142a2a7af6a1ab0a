// `longreach bench train`: whole training steps against PyTorch, alternated.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "core/error.h"
#include "train/bench/training.h"
#include "train/program/bench_models.h"
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

void add_options(CLI::App& app, ModelBench<TrainingSetting>& options) {
  TrainingSetting& shape = options.shape;
  add_choices(app, options.peers, training_peer_names(), options.dtypes, options.threads);
  add_size(app, "--layers", shape.layers, "decoder layers");
  add_size(app, "--hidden-size", shape.hidden_size, "model width");
  add_size(app, "--heads", shape.heads, "query, key and value heads");
  add_size(app, "--intermediate-size", shape.intermediate_size, "width inside the MLP");
  add_size(app, "--vocab-size", shape.vocab_size, "tokens known");
  add_size(app, "--length", shape.tokens, "tokens a sequence");
  add_size(app, "--batch", shape.batch, "sequences a step");
  add_rounds_and_json(app, shape.rounds, options.json_path);
}

}  // namespace

int bench_train(const Arguments& arguments) {
  ModelBench<TrainingSetting> options;
  CLI::App app("Training steps of a Llama-like decoder against PyTorch, alternated in one run",
               "bench train");
  add_options(app, options);
  if (!parse_arguments(app, arguments)) return 0;
  expect_heads(options.shape.hidden_size, options.shape.heads);
  return report_rows<TrainingRow>(options.json_path, [&] {
    print_head();
    auto rows = measure_training_in_workers(options.settings(), print_training);
    std::printf(
        "tok/s    of the fastest step and of the median one; process CPU time at one thread, wall time at "
        "more; ratio: peer / ours, median over rounds\n");
    return rows;
  });
}

}  // namespace longreach
