// Drawing through the gnuplot program.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "train/program/plot/series.h"

namespace longreach::plot {

// A gnuplot script that draws one panel for each y, every run a colour: raw points pale, smoothed dark,
// held-out as marks. curves[i][j]: run i, quantity j.
std::string curves_script(const std::string& output, const std::string& x, const std::vector<std::string>& y,
                          const std::vector<std::vector<Curve>>& curves);

// Log-log, microseconds a token against T.
std::string scaling_script(const std::string& output, const std::vector<Series>& series);

// Log-log, times the speed of one rank against ranks, and what would be ideal.
std::string ranks_script(const std::string& output, const std::vector<Series>& series);

// A matrix drawn as a heat map, row 0 at the top.
struct HeatMap {
  std::string title, x, y;  // of the axes
  int64_t rows = 0, columns = 0;
  std::vector<float> values;                       // row-major
  std::vector<std::string> x_tics, y_tics;         // of columns and rows; empty: their numbers
  std::optional<std::pair<double, double>> range;  // of the colours; none: the values' own
};

// Heat maps side by side.
std::string heat_maps_script(const std::string& output, const std::vector<HeatMap>& maps);

// Draws into a file beside `output`, then renames it. `script` makes the script for a file name. `program`:
// gnuplot. Throws UserError: an ending other than .png and .svg, gnuplot missing (names the package) or
// failing (its first words).
template <class Script>
void draw(const std::string& output, const Script& script);

void run_gnuplot(const std::string& script, const std::string& drawn, const std::string& output);
// output with a name of its own before the ending: a/b.png -> a/b.tmp.png. Throws UserError for another
// ending.
std::string unfinished_name(const std::string& output);

template <class Script>
void draw(const std::string& output, const Script& script) {
  const std::string drawn = unfinished_name(output);
  run_gnuplot(script(drawn), drawn, output);
}

}  // namespace longreach::plot
