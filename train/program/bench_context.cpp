// `longreach bench scaling --context`: layers whose row ranks share.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

#include "core/error.h"
#include "layers/attention/mechanisms.h"
#include "train/bench/conditions.h"
#include "train/bench/context_layer.h"
#include "train/bench/layer.h"
#include "train/bench/report.h"
#include "train/program/bench_models.h"
#include "train/program/command_line.h"
#include "train/program/verbs.h"

namespace longreach {
namespace {

using namespace bench;

struct Options {
  std::vector<std::string> kinds = attention_kinds();
  std::vector<int> ranks{2};
  Setting shape{.rounds = 5};
  std::string json_path;
  bool context = true, weak = false;
};

void add_options(CLI::App& app, Options& options) {
  app.add_flag("--context", options.context, "ranks share one row; else each has rows of its own");
  app.add_option("--kinds", options.kinds, "kinds of attention")
      ->delimiter(',')
      ->check(CLI::IsMember(attention_kinds()))
      ->capture_default_str();
  app.add_option("--ranks", options.ranks, "numbers of ranks of this machine, each against one")
      ->delimiter(',')
      ->check(CLI::Range(2, 1024))
      ->capture_default_str();
  add_size(app, "--seq-len", options.shape.tokens, "tokens of the row, which is one document");
  app.add_flag("--weak", options.weak, "--seq-len is a rank's part: rows grow with the ranks");
  add_size(app, "--heads", options.shape.heads, "heads of queries, keys and values");
  add_size(app, "--head-dim", options.shape.head_dim, "head dimension");
  app.add_option("--dtype", options.shape.dtype, "float32 or bfloat16")
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
  app.add_option("--threads", options.shape.threads, "threads of a rank")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--rounds", options.shape.rounds, "alternations")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--set", options.shape.options, "KEY=VALUE, an option of the kinds (longreach info KIND)");
  app.add_option("--json", options.json_path,
                 "write machine and rows to this file; `longreach plot` draws it");
}

// Each kind balanced; dense contiguous beside it.
std::vector<ContextSetting> settings_of(const Options& options) {
  std::vector<ContextSetting> settings;
  for (const int ranks : options.ranks)
    for (const std::string& kind : options.kinds) {
      ContextSetting setting{.layer = options.shape, .ranks = ranks};
      setting.layer.name = layer_name(kind);
      if (options.weak) setting.layer.tokens *= ranks;
      setting.layer.kv_heads = setting.layer.heads;
      setting.layer.pass = "both";
      setting.layer.peer.clear();
      expect_layer_setting(setting.layer);
      if (kind == DenseConfig::kind) {
        settings.push_back(setting);
        settings.back().balance = "none";
      }
      settings.push_back(setting);
    }
  return settings;
}

nlohmann::json json_of(const ContextRow& row) {
  nlohmann::json json = row;
  json["name"] = row.setting.layer.name + ", " + row.setting.balance;
  json["ranks"] = row.setting.ranks;
  return json;
}

void print_row(const ContextRow& row) {
  std::printf("%-16s %-9s %5d %9.3f %9.3f %7.2fx %8.1f%% %9.2f %9.3f\n", row.setting.layer.name.c_str(),
              row.setting.balance.c_str(), row.setting.ranks, row.one_seconds, row.seconds, row.ratio,
              100 * row.waited, static_cast<double>(row.bytes) / (1 << 20), row.imbalance);
  std::fflush(stdout);
}

}  // namespace

int bench_context_scaling(const Arguments& arguments) {
  Options options;
  CLI::App app(
      "One layer, forward and backward, over ranks that share its row against one rank, alternated in one "
      "run",
      "bench scaling --context");
  add_options(app, options);
  if (!parse_arguments(app, arguments)) return 0;
  const std::vector<ContextSetting> settings = settings_of(options);
  const Machine machine = this_machine();
  print_machine(std::cout, machine);
  const double load_before = load_average();
  std::printf("%-16s %-9s %5s %9s %9s %8s %9s %9s %9s\n", "layer", "balance", "ranks", "one s", "all s",
              "ratio", "waiting", "MiB sent", "predicted");
  std::fflush(stdout);
  nlohmann::json json = {{"cpu", machine.cpu}, {"rows", nlohmann::json::array()}};
  for (const ContextSetting& setting : settings) {
    const ContextRow row = measure_in_ranks(setting);
    print_row(row);
    json["rows"].push_back(json_of(row));
  }
  std::printf(
      "load  %.2f before, %.2f after; T = %lld%s, %d thread(s) a rank, medians of %d rounds; predicted: the "
      "dearest rank over the mean\n",
      load_before, load_average(), static_cast<long long>(options.shape.tokens),
      options.weak ? " a rank" : "", options.shape.threads, options.shape.rounds);
  std::fflush(stdout);
  if (!options.json_path.empty()) write_json(options.json_path, json);
  return 0;
}

}  // namespace longreach
