// Scripts with their data inside, and the call of the program. Data are numbers; every other word goes
// through quoted(), and titles are drawn without gnuplot's markup.
#include "train/program/plot/gnuplot.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iomanip>

#include "core/error.h"
#include "core/temporary_folder.h"

extern char** environ;

namespace longreach::plot {
namespace {

constexpr const char* kColours[] = {"#1f5fa8", "#c23b22", "#2e8540", "#8a3ea8",
                                    "#b8860b", "#148f8f", "#666666", "#d6408b"};

std::string quoted(const std::string& words) {
  std::string out = "'";
  for (const char c : one_line(words, 4000)) out += c == '\'' ? "''" : std::string(1, c);
  return out + "'";
}

std::string colour(size_t run) { return quoted(kColours[run % std::size(kColours)]); }

void preamble(std::ostream& out, const std::string& output, int width, int height) {
  out << std::setprecision(17);
  if (output.ends_with(".svg"))
    out << "set terminal svg size " << width << "," << height
        << " font 'sans,13' background 'white' noenhanced\n";
  else
    out << "if (strstrt(GPVAL_TERMINALS, 'pngcairo') > 0) { set terminal pngcairo size " << width << ","
        << height << " font 'sans,11' noenhanced } else { set terminal png size " << width << "," << height
        << " noenhanced }\n";
  out << "set output " << quoted(output)
      << "\nset grid lc rgb '#dddddd'\nset border 3\nset tics nomirror\nset key right top\n";
}

void data(std::ostream& out, const std::string& name, const Series& series) {
  out << name << " << EOD\n";
  for (size_t i = 0; i < series.x.size(); ++i) out << series.x[i] << " " << series.y[i] << "\n";
  out << "EOD\n";
}

// gnuplot's exit status; its stderr goes to `errors`.
int spawn_gnuplot(const std::string& script, const std::string& errors) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, errors.c_str(), O_WRONLY | O_TRUNC, 0600);
  const char* arguments[] = {"gnuplot", script.c_str(), nullptr};
  pid_t child = 0;
  const int error =
      ::posix_spawnp(&child, "gnuplot", &actions, nullptr, const_cast<char**>(arguments), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return 127;
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

}  // namespace

std::string curves_script(const std::string& output, const std::string& x, const std::vector<std::string>& y,
                          const std::vector<std::vector<Curve>>& curves) {
  std::ostringstream out;
  preamble(out, output, 960, static_cast<int>(120 + 480 * y.size()));
  for (size_t run = 0; run < curves.size(); ++run)
    for (size_t panel = 0; panel < y.size(); ++panel) {
      const std::string name = text("$r", run, "_", panel);
      data(out, name + "_raw", curves[run][panel].raw);
      data(out, name + "_smooth", curves[run][panel].smooth);
      data(out, name + "_valid", curves[run][panel].held_out);
    }
  out << "set multiplot layout " << y.size() << ",1\nset xlabel " << quoted(x) << "\n";
  for (size_t panel = 0; panel < y.size(); ++panel) {
    out << "set ylabel " << quoted(y[panel]) << "\nplot ";
    for (size_t run = 0; run < curves.size(); ++run) {
      const Curve& curve = curves[run][panel];
      const std::string name = text("$r", run, "_", panel), rgb = " lc rgb " + colour(run);
      // The alpha channel makes the raw points pale.
      out << (run ? ", " : "") << name << "_raw with lines lw 1 lc rgb '#b0"
          << (kColours[run % std::size(kColours)] + 1) << "' notitle, " << name << "_smooth with lines lw 2"
          << rgb << " title " << quoted(curve.smooth.label);
      if (!curve.held_out.x.empty())
        out << ", " << name << "_valid with linespoints pt 7 ps 0.9 dt 2" << rgb << " title "
            << quoted(curve.smooth.label + ", held out");
    }
    out << "\n";
  }
  out << "unset multiplot\nset output\n";
  return out.str();
}

namespace {

// before: what is plotted beside the series, ending with a comma.
std::string log_log_script(const std::string& output, const std::vector<Series>& series, const char* x,
                           const char* y, const char* before) {
  std::ostringstream out;
  preamble(out, output, 960, 600);
  for (size_t i = 0; i < series.size(); ++i) data(out, text("$s", i), series[i]);
  out << "set logscale xy\nset logscale x 2\nset xlabel '" << x << "'\nset ylabel '" << y
      << "'\nset key left top\nplot " << before;
  for (size_t i = 0; i < series.size(); ++i)
    out << (i ? ", " : "") << "$s" << i << " with linespoints pt 7 lw 2 lc rgb " << colour(i) << " title "
        << quoted(series[i].label);
  out << "\nset output\n";
  return out.str();
}

}  // namespace

std::string scaling_script(const std::string& output, const std::vector<Series>& series) {
  return log_log_script(output, series, "T, tokens", "microseconds a token", "");
}

std::string ranks_script(const std::string& output, const std::vector<Series>& series) {
  return log_log_script(output, series, "ranks", "times the speed of one",
                        "x with lines dt 2 lc rgb 'gray' title 'ideal', ");
}

namespace {

// names: of the places 0, 1, ...; empty: gnuplot's own numbers.
std::string tics(const std::vector<std::string>& names) {
  if (names.empty()) return "autofreq";
  std::string list;
  for (size_t i = 0; i < names.size(); ++i) list += text(i > 0 ? ", " : "", quoted(names[i]), " ", i);
  return "(" + list + ")";
}

// gnuplot draws no image of one row or one column: it is there twice then, the second time outside of the
// axes.
void matrix(std::ostream& out, const std::string& name, const HeatMap& map) {
  out << name << " << EOD\n";
  for (int64_t r = 0; r < std::max<int64_t>(map.rows, 2); ++r) {
    const float* row = &map.values[static_cast<size_t>(std::min(r, map.rows - 1) * map.columns)];
    for (int64_t c = 0; c < std::max<int64_t>(map.columns, 2); ++c)
      out << (c > 0 ? " " : "") << row[std::min(c, map.columns - 1)];
    out << "\n";
  }
  out << "EOD\n";
}

std::string colour_range(const HeatMap& map) {
  return map.range ? text("[", map.range->first, ":", map.range->second, "]") : "[*:*]";
}

}  // namespace

std::string heat_maps_script(const std::string& output, const std::vector<HeatMap>& maps) {
  std::ostringstream out;
  preamble(out, output, static_cast<int>(480 * maps.size()), 480);
  for (size_t i = 0; i < maps.size(); ++i) matrix(out, text("$m", i), maps[i]);
  out << "set multiplot layout 1," << maps.size()
      << "\nset palette defined (0 'white', 0.2 '#9ecae1', 0.6 '#1f5fa8', 1 '#08204a')\n"
         "unset key\nunset grid\n";
  for (size_t i = 0; i < maps.size(); ++i) {
    const HeatMap& map = maps[i];
    out << "set title " << quoted(map.title) << "\nset xlabel " << quoted(map.x) << "\nset ylabel "
        << quoted(map.y) << "\nset xtics " << tics(map.x_tics) << "\nset ytics " << tics(map.y_tics)
        << "\nset xrange [-0.5:" << static_cast<double>(map.columns) - 0.5 << "]\nset yrange ["
        << static_cast<double>(map.rows) - 0.5 << ":-0.5]\nset cbrange " << colour_range(map) << "\nplot $m"
        << i << " matrix with image\n";
  }
  out << "unset multiplot\nset output\n";
  return out.str();
}

std::string unfinished_name(const std::string& output) {
  const bool known = output.ends_with(".png") || output.ends_with(".svg");
  check<UserError>(known, one_line(output), ": unknown kind of picture, allowed: .png, .svg");
  return output.substr(0, output.size() - 4) + ".tmp" + output.substr(output.size() - 4);
}

void run_gnuplot(const std::string& script, const std::string& drawn, const std::string& output) {
  {
    const std::ofstream writable(drawn);  // gnuplot's own message for this is obscure
    check<UserError>(writable.good(), one_line(output), ": cannot be written");
  }
  const TemporaryFolder folder;
  const std::string errors = folder.write("errors", "");
  const int status = spawn_gnuplot(folder.write("script", script), errors);
  std::error_code failed;
  if (status == 0 && std::filesystem::file_size(drawn, failed) > 0 && !failed) {
    std::filesystem::rename(drawn, output, failed);
    check<UserError>(!failed, one_line(output), ": cannot be written: ", failed.message());
    return;
  }
  std::filesystem::remove(drawn, failed);
  check<UserError>(status != 127, "gnuplot is not installed: apt-get install gnuplot-nox");
  std::ifstream messages(errors);
  const std::string words((std::istreambuf_iterator<char>(messages)), {});
  throw UserError(one_line(text("gnuplot failed with status ", status, ": ", words), 400));
}

}  // namespace longreach::plot
