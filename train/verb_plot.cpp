// `longreach plot`: loss curves of runs, scaling curves of benchmarks.
#include <algorithm>
#include <filesystem>
#include <iostream>

#include "train/command_line.h"
#include "train/plot/gnuplot.h"
#include "train/plot/series.h"
#include "train/verbs.h"

namespace longreach {
namespace {

struct PlotOptions {
  std::vector<std::string> inputs;
  std::string output, x = "step";
  std::vector<std::string> y = {"loss"};
};

bool is_benchmark(const std::string& input) { return input.ends_with(".json"); }

std::string default_output(const std::string& input) {
  if (is_benchmark(input)) return input.substr(0, input.size() - 5) + ".png";
  const std::filesystem::path path(input);
  return ((std::filesystem::is_directory(path) ? path : path.parent_path()) / "plot.png").string();
}

void plot_scaling(const PlotOptions& options) {
  std::vector<plot::Series> all;
  for (const std::string& input : options.inputs)
    for (plot::Series& series : plot::read_scaling(input)) {
      if (options.inputs.size() > 1)
        series.label += " (" + std::filesystem::path(input).stem().string() + ")";
      all.push_back(std::move(series));
    }
  plot::draw(options.output, [&](const std::string& file) { return plot::scaling_script(file, all); });
}

void plot_runs(const PlotOptions& options) {
  std::vector<std::vector<plot::Curve>> curves;
  for (const std::string& input : options.inputs)
    curves.push_back(plot::read_run(input, options.x, options.y));
  plot::draw(options.output, [&](const std::string& file) {
    return plot::curves_script(file, options.x, options.y, curves);
  });
}

}  // namespace

int plot_verb(const Arguments& arguments) {
  CLI::App app(
      "Draws the curves of training runs (metrics.jsonl), or the scaling curve of a benchmark's JSON",
      "plot");
  PlotOptions options;
  app.add_option("RUN", options.inputs, "Run folders, metrics.jsonl files, or the .json of `longreach bench`")
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
  if (!parse_arguments(app, arguments)) return 0;
  const auto benchmarks = std::count_if(options.inputs.begin(), options.inputs.end(), is_benchmark);
  check<UserError>(benchmarks == 0 || benchmarks == static_cast<std::ptrdiff_t>(options.inputs.size()),
                   "plot: benchmarks (.json) and runs cannot share a picture");
  if (options.output.empty()) options.output = default_output(options.inputs.front());
  benchmarks ? plot_scaling(options) : plot_runs(options);
  std::cout << options.output << "\n";
  return 0;
}

}  // namespace longreach
