// Curves read from a run's metrics.jsonl or a benchmark's JSON, ready to draw.
#pragma once
#include <string>
#include <vector>

namespace longreach::plot {

struct Series {
  std::string label;
  std::vector<double> x, y;
};

// One quantity of one run: every point, a light smoothing of them, and the held-out points (valid_QUANTITY).
struct Curve {
  Series raw, smooth, held_out;
};

// A run folder or the path of a metrics.jsonl. x: step, tokens or seconds; y: the names of the quantities.
// One Curve for each y. Points where x or y is missing or not finite are left out; a torn last line is
// skipped. Throws DataError: no file, a malformed line (named), nothing to plot, an unknown quantity (with
// the known ones).
std::vector<Curve> read_run(const std::string& run, const std::string& x, const std::vector<std::string>& y);

// {"rows": [{"name": .., "T": .., "seconds": ..}, ...]} -> one Series a name, microseconds a token against T,
// sorted by T; several rows of a name and T count as their least. Throws DataError.
std::vector<Series> read_scaling(const std::string& path);

// {"rows": [{"name": .., "ranks": .., "ratio": ..}, ...]} -> one Series a name, the speed in that of one rank
// against ranks, sorted by ranks. Throws DataError.
std::vector<Series> read_ranks(const std::string& path);
// Whether a benchmark's rows tell ranks and not lengths.
bool tells_ranks(const std::string& path);

// Exponential moving average over about a fiftieth of the points, free of the start's bias.
std::vector<double> smoothed(const std::vector<double>& values);

}  // namespace longreach::plot
