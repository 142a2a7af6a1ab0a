// `longreach bench decode` and `longreach bench prefill`: using a model, against PyTorch eager, what memory
// gives and what the CPU multiplies.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

#include "core/error.h"
#include "train/bench/decoding.h"
#include "train/bench/report.h"
#include "train/program/command_line.h"
#include "train/program/verbs.h"

namespace longreach {
namespace {

using namespace bench;

struct Options {
  DecodingSetting shape;
  std::vector<std::string> peers{"eager"}, dtypes{"float32", "bfloat16"};
  std::vector<int> threads{1};
  std::string json_path;
};

void print_head(bool prefill) {
  std::printf("%-8s %3s %9s %9s %9s %6s  %-6s %9s %9s %6s %8s %10s\n", "dtype", "thr", "tok/s", "median",
              prefill ? "" : "GB/s", prefill ? "peak" : "read", "peer", "tok/s", "median",
              prefill ? "peak" : "read", "ratio", "of minima");
}

void print_decoding(const DecodingRow& row) {
  const DecodingSetting& s = row.setting;
  if (!row.refused.empty()) {
    std::printf("%-8s %3d  refused: %s\n", s.dtype.c_str(), s.threads, one_line(row.refused).c_str());
  } else {
    const auto rate = [](double seconds) { return seconds > 0 ? 1.0 / seconds : 0.0; };
    char bandwidth[32] = "";
    if (!s.prefill) std::snprintf(bandwidth, sizeof bandwidth, "%.1f", 1e-9 * row.bandwidth);
    const double share = s.prefill ? row.peak_share : row.bandwidth_share,
                 theirs = s.prefill ? row.peer_peak_share : row.peer_bandwidth_share;
    std::printf("%-8s %3d %9.1f %9.1f %9s %5.0f%%  %-6s %9.1f %9.1f %5.0f%% %7.2fx %9.2fx\n", s.dtype.c_str(),
                s.threads, rate(row.seconds_min), rate(row.seconds_median), bandwidth, 100 * share,
                s.peer.empty() ? "none" : s.peer.c_str(), rate(row.peer_seconds_min),
                rate(row.peer_seconds_median), 100 * theirs, row.ratio, row.ratio_of_minima);
  }
  std::fflush(stdout);
}

void add_options(CLI::App& app, Options& options) {
  const auto count = [&](const char* name, int64_t& value, const char* help) {
    app.add_option(name, value, help)->check(CLI::Range(int64_t{1}, int64_t{1} << 24))->capture_default_str();
  };
  app.add_option("--checkpoint", options.shape.checkpoint,
                 "run, checkpoint folder or a model that import reads [random weights of the sizes below]");
  app.add_option("--peer", options.peers, "peers: eager, none")
      ->delimiter(',')
      ->check(CLI::IsMember({"eager", "none"}))
      ->capture_default_str();
  app.add_option("--dtype", options.dtypes, "of the weights: float32, bfloat16")
      ->delimiter(',')
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "thread counts; a fresh process each")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  count("--length", options.shape.tokens, "tokens of the prompt");
  if (!options.shape.prefill) count("--steps", options.shape.steps, "tokens decoded after it in a sample");
  count("--layers", options.shape.layers, "decoder layers");
  count("--hidden-size", options.shape.hidden_size, "model width");
  count("--heads", options.shape.heads, "query heads");
  count("--kv-heads", options.shape.kv_heads, "key and value heads");
  count("--intermediate-size", options.shape.intermediate_size, "width inside the MLP");
  count("--vocab-size", options.shape.vocab_size, "tokens known");
  app.add_option("--rounds", options.shape.rounds, "alternations of ours and the peer")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("--json", options.json_path, "write machine and rows to this file");
}

std::vector<DecodingSetting> settings_of(const Options& options) {
  std::vector<DecodingSetting> settings;
  for (const int threads : options.threads)
    for (const std::string& dtype : options.dtypes)
      for (const std::string& peer : options.peers) {
        DecodingSetting one = options.shape;
        one.threads = threads;
        one.dtype = dtype;
        one.peer = peer == "none" ? "" : peer;
        settings.push_back(one);
      }
  return settings;
}

void expect_heads(const DecodingSetting& shape) {
  check<UserError>(shape.hidden_size % shape.heads == 0 && shape.hidden_size / shape.heads % 2 == 0,
                   "--heads: found ", shape.heads,
                   ", expected a divisor of --hidden-size = ", shape.hidden_size,
                   " that leaves an even head dimension");
  check<UserError>(shape.heads % shape.kv_heads == 0, "--kv-heads: found ", shape.kv_heads,
                   ", expected a divisor of --heads = ", shape.heads);
}

}  // namespace

int bench_decode(const Arguments& arguments, bool prefill) {
  Options options;
  options.shape.prefill = prefill;
  if (prefill) options.shape.tokens = 512;
  CLI::App app(prefill ? "Reading a prompt, alternated with PyTorch eager, and the share of the CPU's peak"
                       : "Decoding, alternated with PyTorch eager and with reading as many bytes",
               prefill ? "bench prefill" : "bench decode");
  add_options(app, options);
  if (!parse_arguments(app, arguments)) return 0;
  if (options.shape.checkpoint.empty()) expect_heads(options.shape);
  const Machine machine = this_machine();
  print_machine(std::cout, machine);
  const double load_before = load_average();
  print_head(prefill);
  const auto rows = measure_decoding_in_workers(settings_of(options), print_decoding);
  std::printf(
      "tok/s    of the fastest sample and of the median one; process CPU time at one thread, wall time "
      "at more; ratio: peer / ours, median over rounds\n");
  std::printf(prefill
                  ? "peak     operations that the algorithm needs over those that the CPU can do\n"
                  : "read     bytes of the weights a second over those that plain reading of as many gets, "
                    "median over rounds; GB/s: its best\n");
  std::printf("load     %.2f before, %.2f after\n", load_before, load_average());
  std::fflush(stdout);
  if (!options.json_path.empty()) {
    write_json(options.json_path, nlohmann::json{{"cpu", machine.cpu}, {"rows", rows}});
    std::cout << "json     " << options.json_path << "\n";
  }
  return std::any_of(rows.begin(), rows.end(), [](const auto& row) { return !row.refused.empty(); }) ? 1 : 0;
}

}  // namespace longreach
