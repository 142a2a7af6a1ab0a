// `longreach bench decode` and `longreach bench prefill`: using a model, against PyTorch eager, what memory
// gives and what the CPU multiplies.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "core/error.h"
#include "train/bench/decoding.h"
#include "train/program/bench_models.h"
#include "train/program/command_line.h"
#include "train/program/verbs.h"

namespace longreach {
namespace {

using namespace bench;

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

void add_options(CLI::App& app, ModelBench<DecodingSetting>& options) {
  DecodingSetting& shape = options.shape;
  app.add_option("--checkpoint", shape.checkpoint,
                 "run, checkpoint folder or a model that import reads [random weights of the sizes below]");
  add_choices(app, options.peers, {"eager"}, options.dtypes, options.threads);
  add_size(app, "--length", shape.tokens, "tokens of the prompt");
  if (!shape.prefill) add_size(app, "--steps", shape.steps, "tokens decoded after it in a sample");
  add_size(app, "--layers", shape.layers, "decoder layers");
  add_size(app, "--hidden-size", shape.hidden_size, "model width");
  add_size(app, "--heads", shape.heads, "query heads");
  add_size(app, "--kv-heads", shape.kv_heads, "key and value heads");
  add_size(app, "--intermediate-size", shape.intermediate_size, "width inside the MLP");
  add_size(app, "--vocab-size", shape.vocab_size, "tokens known");
  add_rounds_and_json(app, shape.rounds, options.json_path);
}

void expect_sizes(const DecodingSetting& shape) {
  if (!shape.checkpoint.empty()) return;
  expect_heads(shape.hidden_size, shape.heads);
  check<UserError>(shape.heads % shape.kv_heads == 0, "--kv-heads: found ", shape.kv_heads,
                   ", expected a divisor of --heads = ", shape.heads);
}

}  // namespace

int bench_decode(const Arguments& arguments, bool prefill) {
  ModelBench<DecodingSetting> options{.dtypes = {"float32", "bfloat16"}};
  options.shape.prefill = prefill;
  if (prefill) options.shape.tokens = 512;
  CLI::App app(prefill ? "Reading a prompt, alternated with PyTorch eager, and the share of the CPU's peak"
                       : "Decoding, alternated with PyTorch eager and with reading as many bytes",
               prefill ? "bench prefill" : "bench decode");
  add_options(app, options);
  if (!parse_arguments(app, arguments)) return 0;
  expect_sizes(options.shape);
  return report_rows<DecodingRow>(options.json_path, [&] {
    print_head(prefill);
    auto rows = measure_decoding_in_workers(options.settings(), print_decoding);
    std::printf(
        "tok/s    of the fastest sample and of the median one; process CPU time at one thread, wall time "
        "at more; ratio: peer / ours, median over rounds\n");
    std::printf(prefill
                    ? "peak     operations that the algorithm needs over those that the CPU can do\n"
                    : "read     bytes of the weights a second over those that plain reading of as many gets, "
                      "median over rounds; GB/s: its best\n");
    return rows;
  });
}

}  // namespace longreach
