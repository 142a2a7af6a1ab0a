// `longreach plot`: loss curves of runs, scaling curves of benchmarks, maps of gates.
#include <algorithm>
#include <filesystem>
#include <iostream>

#include "train/evaluate_gates.h"
#include "train/held_out.h"
#include "train/program/command_line.h"
#include "train/program/plot/gnuplot.h"
#include "train/program/plot/series.h"
#include "train/program/verbs.h"

namespace longreach {
namespace {

struct PlotOptions {
  std::vector<std::string> inputs;
  std::string output, x = "step";
  std::vector<std::string> y = {"loss"};
  int64_t gate = -1, head = 0, seq_len = 0;
};

bool is_benchmark(const std::string& input) { return input.ends_with(".json"); }

std::string default_output(const std::string& input) {
  if (is_benchmark(input)) return input.substr(0, input.size() - 5) + ".png";
  const std::filesystem::path path(input);
  return ((std::filesystem::is_directory(path) ? path : path.parent_path()) / "plot.png").string();
}

void plot_scaling(const PlotOptions& options) {
  const bool ranks = plot::tells_ranks(options.inputs.front());
  std::vector<plot::Series> all;
  for (const std::string& input : options.inputs)
    for (plot::Series& series : ranks ? plot::read_ranks(input) : plot::read_scaling(input)) {
      if (options.inputs.size() > 1)
        series.label += " (" + std::filesystem::path(input).stem().string() + ")";
      all.push_back(std::move(series));
    }
  plot::draw(options.output, [&](const std::string& file) {
    return ranks ? plot::ranks_script(file, all) : plot::scaling_script(file, all);
  });
}

void plot_runs(const PlotOptions& options) {
  std::vector<std::vector<plot::Curve>> curves;
  for (const std::string& input : options.inputs)
    curves.push_back(plot::read_run(input, options.x, options.y));
  plot::draw(options.output, [&](const std::string& file) {
    return plot::curves_script(file, options.x, options.y, curves);
  });
}

plot::HeatMap heat_map(const std::string& title, const std::string& rows, const at::Tensor& map) {
  const at::Tensor values = map.to(at::kFloat).contiguous();
  return {title,          "key block",
          rows,           values.size(0),
          values.size(1), {values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.numel()}};
}

// What a gate says, what it should say, and what is read, on the first held-out row.
void plot_gate(const PlotOptions& options) {
  check<UserError>(options.inputs.size() == 1, "plot --gate: expected one checkpoint, ",
                   options.inputs.size(), " given");
  SavedModel saved = load_saved_model(options.inputs.front());
  const data::Corpus corpus = held_out_corpus(saved, {});
  const data::ValidLoader loader(
      corpus, {.seq_len = options.seq_len ? options.seq_len : saved.config.training.seq_len,
               .seed = static_cast<uint64_t>(saved.config.training.seed),
               .varlen = saved.config.training.varlen});
  const GateMaps maps = gate_maps(*saved.model, loader, options.gate);
  check<UserError>(options.head < maps.scores.size(0), "--head ", options.head, ": the gate of layer ",
                   options.gate, " has ", maps.scores.size(0), " maps, 0 to ", maps.scores.size(0) - 1);
  const std::string rows = maps.scores.size(1) > maps.scores.size(2) ? "query" : "query block";
  const std::string where = text("layer ", options.gate, ", head ", options.head);
  plot::draw(options.output, [&](const std::string& file) {
    return plot::heat_maps_script(file, {heat_map("gate, " + where, rows, maps.scores[options.head]),
                                         heat_map("true block maximum", rows, maps.truth[options.head]),
                                         heat_map("blocks read", rows, maps.chosen[options.head])});
  });
}

}  // namespace

int plot_verb(const Arguments& arguments) {
  CLI::App app(
      "Draws the curves of training runs (metrics.jsonl), the scaling curve of a benchmark's JSON, or the "
      "gate of "
      "a `seer` layer",
      "plot");
  PlotOptions options;
  app.add_option(
         "RUN", options.inputs,
         "Run folders, metrics.jsonl files, or the .json of `longreach bench`; with --gate, a checkpoint")
      ->required();
  app.add_option("--output,-o", options.output,
                 "FILE.png or FILE.svg; default: plot.png in the first run's folder");
  app.add_option("--x", options.x, "What runs along the x axis")
      ->check(CLI::IsMember({"step", "tokens", "seconds"}))
      ->capture_default_str();
  app.add_option("--y", options.y,
                 "Numbers of metrics.jsonl, one panel each; valid_NAME is drawn beside NAME")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--gate", options.gate,
                 "Layer of a checkpoint whose gate to draw: its map, the true one, the blocks read")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--head", options.head, "--gate: which of its maps")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--seq-len", options.seq_len, "--gate: tokens of the row; default: the run's")
      ->check(CLI::NonNegativeNumber);
  if (!parse_arguments(app, arguments)) return 0;
  const auto benchmarks = std::count_if(options.inputs.begin(), options.inputs.end(), is_benchmark);
  check<UserError>(benchmarks == 0 || benchmarks == static_cast<std::ptrdiff_t>(options.inputs.size()),
                   "plot: benchmarks (.json) and runs cannot share a picture");
  if (options.output.empty()) options.output = default_output(options.inputs.front());
  if (options.gate >= 0) {
    plot_gate(options);
    std::cout << options.output << "\n";
    return 0;
  }
  benchmarks ? plot_scaling(options) : plot_runs(options);
  std::cout << options.output << "\n";
  return 0;
}

}  // namespace longreach
