// `longreach bench estimate`: training steps on many devices, from what is counted.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "core/config.h"
#include "core/error.h"
#include "train/bench/estimate.h"
#include "train/bench/report.h"
#include "train/program/command_line.h"
#include "train/program/verbs.h"
#include "train/tokenizer_folder.h"

namespace longreach {
namespace {

using namespace bench;

struct Options {
  std::string config, json_path;
  std::vector<int64_t> ranks{8, 16, 32, 64, 128, 256, 512, 1024}, context{1, 8};
  AssumedDevice device;
};

void add_options(CLI::App& app, Options& options) {
  app.add_option("CONFIG", options.config, "what is trained; overrides (--section.key value) follow it")
      ->required();
  app.add_option("--ranks", options.ranks, "numbers of devices")
      ->delimiter(',')
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--context", options.context,
                 "ranks that share a row, a curve each, 0: all of them; the others share the model's state")
      ->delimiter(',')
      ->check(CLI::Range(0, 65536))
      ->capture_default_str();
  app.add_option("--tflops", options.device.tflops, "assumed of a device: 10^12 operations a second")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--gigabytes", options.device.gigabytes,
                 "assumed of a device: 10^9 bytes a second to others")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--json", options.json_path, "write the rows to this file; `longreach plot` draws it");
}

RunConfig read_config(const Options& options, const Arguments& overrides) {
  RunConfig config = read_run_config(options.config, parse_overrides(overrides));
  config.resolve_model(TokenizerFolder(config.data.tokenizer).load()->vocab_size(), options.config);
  return config;
}

void print_row(const Estimate& row) {
  std::printf("%-22s %5lld %11.4f %11.4f %11.4f %12.0f %7.1f%% %9.1f\n", row.name.c_str(),
              static_cast<long long>(row.ranks), row.compute_seconds, row.shared_row_seconds,
              row.state_seconds, row.tokens_per_second, 100 * row.ratio / static_cast<double>(row.ranks),
              row.memory / (1 << 30));
  std::fflush(stdout);
}

}  // namespace

int bench_estimate(const Arguments& arguments) {
  Options options;
  CLI::App app("An estimate of training steps on many devices, from counted operations and bytes",
               "bench estimate");
  add_options(app, options);
  app.allow_extras();
  if (!parse_arguments(app, arguments)) return 0;
  const RunConfig config = read_config(options, app.remaining());
  std::printf(
      "Estimated, not measured: %.0f TFLOP/s and %.0f GB/s a device are assumed, latencies left out.\n",
      options.device.tflops, options.device.gigabytes);
  std::printf("%-22s %5s %11s %11s %11s %12s %8s %9s\n", "curve", "ranks", "compute s", "rows s", "state s",
              "tokens/s", "of ideal", "GiB");
  nlohmann::json json = {{"assumed", options.device}, {"rows", nlohmann::json::array()}};
  for (const int64_t context : options.context)
    for (const int64_t ranks : options.ranks) {
      const int64_t shared = context == 0 ? ranks : context;
      if (ranks % shared != 0) continue;
      Estimate row = estimate_step(config, {.shard = ranks / shared, .context = shared}, options.device);
      row.name = context == 0   ? "all share a row"
                 : context == 1 ? "rows of their own"
                                : text(context, " share a row");
      print_row(row);
      json["rows"].push_back(row);
    }
  if (!options.json_path.empty()) write_json(options.json_path, json);
  return 0;
}

}  // namespace longreach
