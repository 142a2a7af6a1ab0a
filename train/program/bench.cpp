// `longreach bench`: speed and memory of the fused operators against their peers.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "core/error.h"
#include "layers/attention/mechanisms.h"
#include "train/bench/bench_case.h"
#include "train/bench/context_layer.h"
#include "train/bench/layer.h"
#include "train/bench/measure.h"
#include "train/bench/python_peer.h"
#include "train/bench/report.h"
#include "train/bench/statistics.h"
#include "train/bench/targets.h"
#include "train/bench/worker.h"
#include "train/program/command_line.h"
#include "train/program/verbs.h"

namespace longreach {
namespace {

using namespace bench;

struct Options {
  std::vector<std::string> names, peers{"sdpa"}, dtypes{"float32"}, passes{"forward"};
  std::vector<int> threads{1};
  std::vector<int64_t> lengths{2048, 8192};
  int64_t batch = 1, heads = 8, kv_heads = 0, head_dim = 64;
  int rounds = 7;
  std::string json_path, plot_path;
  std::vector<std::string> set;
  std::vector<int> ranks;
  bool list = false, install = false;
};

void add_shape(CLI::App& app, Options& options) {
  app.add_option("--threads", options.threads, "thread counts; a fresh process each")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--lengths", options.lengths, "sequence lengths T")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->capture_default_str();
  app.add_option("--dtype", options.dtypes, "float32, bfloat16")
      ->delimiter(',')
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
  app.add_option("--batch", options.batch, "sequences")->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_option("--heads", options.heads, "query heads")->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_option("--kv-heads", options.kv_heads, "key and value heads; must divide --heads [--heads]")
      ->check(CLI::Range(1, 4096));
  app.add_option("--head-dim", options.head_dim, "head dimension")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--set", options.set,
                 "KEY=VALUE, an option of the kinds of attention (longreach info KIND)");
}

void add_time(CLI::App& app, Options& options) {
  app.add_option("--rounds", options.rounds, "alternations of ours and the peer")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("--json", options.json_path, "write machine and rows to this file");
}

std::vector<std::string> operator_names() {
  std::vector<std::string> names;
  for (const BenchCase& one : bench_cases()) names.push_back(one.name);
  return names;
}

// What a word on the command line measures: an operator, a layer, or the layer of a kind that no operator is
// named after.
std::string measured_by(const std::string& word, const std::vector<std::string>& operators) {
  const auto is_operator = [&](const std::string& name) {
    return std::ranges::find(operators, name) != operators.end();
  };
  if (is_operator(word) || is_layer(word)) return word;
  if (is_layer(layer_name(word))) return layer_name(word);
  std::vector<std::string> known = operators;
  for (const std::string& kind : attention_kinds())
    if (!is_operator(kind)) known.push_back(kind);
  std::ranges::copy(layer_names(), std::back_inserter(known));
  throw UserError(one_line(
      text("bench: unknown name `", word, "`", did_you_mean(word, known), "; known: ", join(known))));
}

// All operators when nothing is named; repeats and unknown names are refused early.
std::vector<std::string> chosen_names(const Options& options) {
  const std::vector<std::string> operators = operator_names();
  std::vector<std::string> names;
  for (const std::string& word : options.names) names.push_back(measured_by(word, operators));
  return names.empty() ? operators : names;
}

// Every setting so far once with each value.
template <class Value, class Set>
std::vector<Setting> vary(const std::vector<Setting>& settings, const std::vector<Value>& values, Set set) {
  std::vector<Setting> varied;
  for (const Setting& one : settings) {
    for (const Value& value : values) set(varied.emplace_back(one), value);
  }
  return varied;
}

// The settings of every thread count, name, dtype, pass, length and peer, one shape.
std::vector<Setting> settings_of(const Options& options) {
  Setting shape{.batch = options.batch,
                .heads = options.heads,
                .head_dim = options.head_dim,
                .rounds = options.rounds,
                .options = options.set};
  shape.kv_heads = options.kv_heads > 0 ? options.kv_heads : options.heads;
  check(options.heads % shape.kv_heads == 0, "--kv-heads: found ", shape.kv_heads,
        ", allowed: divisors of --heads = ", options.heads);
  std::vector<Setting> all{shape};
  all = vary(all, options.threads, [](Setting& s, int threads) { s.threads = threads; });
  all = vary(all, chosen_names(options), [](Setting& s, const std::string& name) { s.name = name; });
  all = vary(all, options.dtypes, [](Setting& s, const std::string& dtype) { s.dtype = dtype; });
  all = vary(all, options.passes, [](Setting& s, const std::string& pass) { s.pass = pass; });
  all = vary(all, options.lengths, [](Setting& s, int64_t tokens) { s.tokens = tokens; });
  all = vary(all, options.peers,
             [](Setting& s, const std::string& peer) { s.peer = peer == "none" ? "" : peer; });
  for (const Setting& one : all)
    if (is_layer(one.name))
      expect_layer_setting(one);
    else
      check(one.options.empty(), "--set: ", one.name,
            " is an operator, which has no options; expected a kind of attention");
  return all;
}

bool any_refused(const Report& report) {
  for (const Row& row : report.rows) {
    if (!row.refused.empty()) return true;
  }
  return false;
}

// Measures with a running table and writes the files that were asked for.
Report measure_and_report(const Options& options, const std::vector<Setting>& settings,
                          Conditions& conditions) {
  conditions.machine = this_machine();
  conditions.load_before = load_average();
  print_machine(std::cout, conditions.machine);
  print_table_header(std::cout);
  Report report = measure_in_workers(settings, [](const Row& row) { print_row(std::cout, row); });
  conditions.load_after = load_average();
  print_footer(std::cout, conditions, report);
  if (!options.json_path.empty()) {
    write_json(options.json_path, to_json(conditions, report));
    std::cout << "json     " << options.json_path << "\n";
  }
  return report;
}

// Through `longreach plot`, which reads files.
void draw(const std::string& path, const Report& report) {
  const nlohmann::json curves = curves_json(report);
  if (curves.at("rows").empty()) return;
  const std::string rows_path = path + ".rows.json";
  write_json(rows_path, curves);
  plot_verb({rows_path, "--output", path});
  std::filesystem::remove(rows_path);
}

int list_cases() {
  for (const BenchCase& one : bench_cases()) std::cout << one.name << "  " << one.help << "\n";
  for (const std::string& name : layer_names())
    std::cout << name << "  a whole attention layer; peers: " << join(layer_peer_names()) << "\n";
  std::cout << "peers  " << join(peer_names()) << "\n";
  return 0;
}

int speed(const Arguments& arguments) {
  Options options;
  CLI::App app("Speed of fused operators and attention layers against peers, alternated in one run", "bench");
  app.add_option("names", options.names,
                 "operators [all], kinds of attention (their whole layers), or `memory`, `train`, `decode`, "
                 "`prefill`, `scaling`, `exchanges`, `targets` (see longreach bench train --help)");
  std::vector<std::string> peers = peer_names();
  peers.emplace_back("none");
  app.add_option("--peer", options.peers, text("peers: ", join(peers)))
      ->delimiter(',')
      ->check(CLI::IsMember(peers))
      ->capture_default_str();
  app.add_option("--pass", options.passes, "forward, both (forward and backward)")
      ->delimiter(',')
      ->check(CLI::IsMember({"forward", "both"}))
      ->capture_default_str();
  add_shape(app, options);
  add_time(app, options);
  app.add_option("--plot", options.plot_path, "draw time against T to this .png or .svg file");
  app.add_flag("--list", options.list, "list cases and peers");
  app.add_flag("--install-peers", options.install, "make the Python environment of the Python peers");
  if (!parse_arguments(app, arguments)) return 0;
  if (options.list) return list_cases();
  if (options.install) {
    install_peers();
    return 0;
  }
  Conditions conditions;
  const Report report = measure_and_report(options, settings_of(options), conditions);
  if (!options.plot_path.empty()) draw(options.plot_path, report);
  return any_refused(report) ? 1 : 0;
}

// Beside one rank's figure, which is `one`.
void print_shared_memory(const Setting& layer, int ranks, const MemoryFigure& one) {
  const ContextRow row = measure_in_ranks({.layer = layer, .ranks = ranks, .memory = true});
  char line[200];
  std::snprintf(line, sizeof line,
                "  shared by %d ranks: %.1f MiB on the one that takes most, %.2f of one rank's", ranks,
                static_cast<double>(row.extra_bytes) / (1 << 20),
                static_cast<double>(row.extra_bytes) / static_cast<double>(one.extra_bytes));
  std::cout << line << std::endl;
}

// Prints one line a length, and one for each of `ranks`; false when a limit is exceeded.
bool memory_of(const std::vector<Setting>& settings, const std::vector<int>& ranks) {
  std::vector<double> sizes, extras;
  bool held = true;
  for (const Setting& setting : settings) {
    const MemoryFigure figure = memory_in_worker(setting);
    const auto extra = static_cast<double>(figure.extra_bytes);
    const auto results = static_cast<double>(figure.counted_bytes());
    const bool limited = !is_layer(setting.name),
               within = !limited || memory_within_limit(figure, setting.dtype);
    held = held && within;
    sizes.push_back(static_cast<double>(setting.tokens));
    extras.push_back(std::max(extra, 1.0));
    char line[200];
    std::snprintf(line, sizeof line, "%-18s %7lld %-8s %12.1f %12.1f %8.2fx  %s", setting.name.c_str(),
                  static_cast<long long>(setting.tokens), setting.dtype.c_str(), extra / (1 << 20),
                  results / (1 << 20), extra / results,
                  !limited ? "a layer"
                  : within ? "within the limit"
                           : "above the limit");
    std::cout << line << std::endl;
    for (const int count : ranks) print_shared_memory(setting, count, figure);
  }
  if (sizes.size() < 2) return held;
  const double exponent = growth_exponent(sizes, extras);
  const double allowed = is_layer(settings[0].name) ? kAllowedLayerGrowth : kAllowedGrowth;
  const bool linear = exponent <= allowed;
  std::cout << "growth exponent " << std::round(1000 * exponent) / 1000 << (linear ? " (<= " : ", above ")
            << allowed << (linear ? ")" : "") << std::endl;
  return held && linear;
}

int memory(const Arguments& arguments) {
  Options options;
  options.lengths = {2048, 8192, 32768};
  options.dtypes = {"float32", "bfloat16"};
  options.passes = {"both"};
  options.peers = {"none"};
  CLI::App app("Extra peak memory of forward and backward, each figure in a fresh process", "bench memory");
  app.add_option("names", options.names, "operators [all], kinds of attention (their whole layers)");
  add_shape(app, options);
  app.add_option("--ranks", options.ranks, "of layers: also on so many ranks that share the row")
      ->delimiter(',')
      ->check(CLI::Range(2, 1024));
  if (!parse_arguments(app, arguments)) return 0;
  const std::vector<std::string> names = chosen_names(options);
  for (const std::string& name : names)
    check(options.ranks.empty() || is_layer(name), "bench memory: --ranks: ", name,
          " is an operator, expected kinds of attention");
  std::cout << "extra: peak resident memory during forward and backward less that before; results: o, "
               "gradients and\n"
               "documented states. Limit: 1.3 (bfloat16: 1.8) times results + 32 MiB; of layers, which keep "
               "activations too,\nthe growth alone is judged\n";
  char header[200];
  std::snprintf(header, sizeof header, "%-18s %7s %-8s %12s %12s %9s", "name", "T", "dtype", "extra MiB",
                "results MiB", "factor");
  std::cout << header << std::endl;
  bool held = true;
  for (const std::string& name : names) {
    for (const std::string& dtype : options.dtypes) {
      Options one = options;
      one.names = {name};
      one.dtypes = {dtype};
      held = memory_of(settings_of(one), options.ranks) && held;
    }
  }
  return held ? 0 : 1;
}

int check_targets(const Arguments& arguments) {
  Options options;
  options.threads = {1, 2};
  CLI::App app("The project's speed targets on this machine", "bench targets");
  app.add_option("--threads", options.threads, "thread counts; a fresh process each")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  add_time(app, options);
  if (!parse_arguments(app, arguments)) return 0;
  Conditions conditions;
  const Report report =
      measure_and_report(options, target_settings(options.threads, options.rounds), conditions);
  print_targets(std::cout, conditions.machine, report.rows);
  return any_refused(report) ? 1 : 0;
}

}  // namespace

int bench_verb(const Arguments& arguments) {
  const std::string first = arguments.empty() ? "" : arguments.front();
  const Arguments rest(arguments.begin() + (arguments.empty() ? 0 : 1), arguments.end());
  if (first == "--worker") return worker_main();
  if (first == "--context-worker" && rest.size() == 1) return context_worker_main(rest[0]);
  if (first == "memory") return memory(rest);
  if (first == "train") return bench_train(rest);
  if (first == "decode" || first == "prefill") return bench_decode(rest, first == "prefill");
  if (first == "scaling") return bench_scaling(rest);
  if (first == "exchanges") return bench_exchanges(rest);
  if (first == "estimate") return bench_estimate(rest);
  if (first == "targets") return check_targets(rest);
  return speed(arguments);
}

}  // namespace longreach
