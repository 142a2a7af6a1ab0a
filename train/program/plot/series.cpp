// Reading and smoothing of curves.
#include "train/program/plot/series.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"

namespace longreach::plot {
namespace {

using Json = nlohmann::json;

struct Lines {
  std::string path;
  std::vector<Json> objects;
};

Lines read_lines(const std::string& run) {
  Lines lines{std::filesystem::is_directory(run) ? run + "/metrics.jsonl" : run, {}};
  std::ifstream file(lines.path, std::ios::binary);
  if (!file.good())
    throw DataError(
        one_line(text(lines.path, ": cannot be read; `longreach train` writes it into its dump folder")));
  size_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    const bool last = file.eof();
    if (line.empty()) continue;
    Json object = Json::parse(line, nullptr, false);
    if (object.is_object() && object.contains("step")) {
      lines.objects.push_back(std::move(object));
    } else if (!last) {  // the last line may be half written
      throw DataError(one_line(text(lines.path, ":", number, ": is not a JSON object with a `step`")));
    }
  }
  if (lines.objects.empty()) throw DataError(one_line(text(lines.path, ": holds no metrics yet")));
  return lines;
}

// Points where both keys hold numbers.
Series points(const Lines& lines, const std::string& x, const std::string& y) {
  Series series;
  for (const Json& object : lines.objects) {
    const auto at_x = object.find(x), at_y = object.find(y);
    if (at_x == object.end() || at_y == object.end() || !at_x->is_number() || !at_y->is_number()) continue;
    series.x.push_back(at_x->get<double>());
    series.y.push_back(at_y->get<double>());
  }
  return series;
}

[[noreturn]] void fail_for_want_of(const Lines& lines, const std::string& x, const std::string& y) {
  std::set<std::string> known;
  for (const Json& object : lines.objects)
    for (const auto& [name, value] : object.items())
      if (value.is_number()) known.insert(name);
  const std::vector<std::string> names(known.begin(), known.end());
  const std::string missing = known.count(x) ? y : x;
  throw DataError(one_line(text(lines.path, ": no numbers named `", missing, "`",
                                did_you_mean(missing, names), " there: ", join(names))));
}

std::string label_of(const std::string& run) {
  const std::filesystem::path path = std::filesystem::path(run).lexically_normal();
  const auto folder = path.filename() == "metrics.jsonl" ? path.parent_path() : path;
  const auto name = folder.filename().empty() ? folder.parent_path().filename() : folder.filename();
  return name.string();
}

Json read_benchmark(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file.good()) throw DataError(one_line(text(path, ": cannot be read")));
  Json json = Json::parse(file, nullptr, false);
  const bool shaped = json.is_object() && json.contains("rows") && json["rows"].is_array();
  check<DataError>(
      shaped, one_line(path),
      ": is not a benchmark's JSON: {\"rows\": [{\"name\", \"T\", \"seconds\"}, ...]}, or \"ranks\" "
      "and \"ratio\"");
  return json;
}

struct BenchmarkRow {
  std::string name;
  double x, y;
};

std::vector<BenchmarkRow> benchmark_rows(const std::string& path, const char* x, const char* y) {
  const Json json = read_benchmark(path);
  const auto positive = [](const Json& row, const char* key) {
    return row.contains(key) && row[key].is_number() && row[key].get<double>() > 0;
  };
  std::vector<BenchmarkRow> rows;
  for (const Json& row : json["rows"]) {
    const bool good = row.is_object() && row.contains("name") && row["name"].is_string() &&
                      positive(row, x) && positive(row, y);
    check<DataError>(good, one_line(path), ": row ", rows.size(), ": needs name, ", x, " > 0 and ", y,
                     " > 0");
    rows.push_back({row["name"].get<std::string>(), row[x].get<double>(), row[y].get<double>()});
  }
  check<DataError>(!rows.empty(), one_line(path), ": holds no rows");
  return rows;
}

}  // namespace

std::vector<double> smoothed(const std::vector<double>& values) {
  const double window = std::max(1.0, static_cast<double>(values.size()) / 50), keep = 1 - 1 / window;
  std::vector<double> result;
  double sum = 0, weight = 0;
  for (const double value : values) {
    sum = keep * sum + value;
    weight = keep * weight + 1;
    result.push_back(sum / weight);
  }
  return result;
}

std::vector<Curve> read_run(const std::string& run, const std::string& x, const std::vector<std::string>& y) {
  const Lines lines = read_lines(run);
  std::vector<Curve> curves;
  for (const std::string& name : y) {
    Curve curve{points(lines, x, name), {}, points(lines, x, "valid_" + name)};
    if (curve.raw.x.empty()) fail_for_want_of(lines, x, name);
    curve.smooth = {label_of(run), curve.raw.x, smoothed(curve.raw.y)};
    curves.push_back(std::move(curve));
  }
  return curves;
}

std::vector<Series> read_scaling(const std::string& path) {
  std::map<std::string, std::map<double, double>> best;
  for (const BenchmarkRow& row : benchmark_rows(path, "T", "seconds")) {
    auto& times = best[row.name];
    times[row.x] = times.count(row.x) ? std::min(times[row.x], row.y) : row.y;
  }
  std::vector<Series> all;
  for (const auto& [name, times] : best) {
    Series series{name, {}, {}};
    for (const auto& [tokens, seconds] : times) {
      series.x.push_back(tokens);
      series.y.push_back(1e6 * seconds / tokens);
    }
    all.push_back(std::move(series));
  }
  return all;
}

bool tells_ranks(const std::string& path) {
  const Json json = read_benchmark(path);
  return !json["rows"].empty() && json["rows"][0].is_object() && json["rows"][0].contains("ranks");
}

std::vector<Series> read_ranks(const std::string& path) {
  std::map<std::string, std::map<double, double>> ratios;
  for (const BenchmarkRow& row : benchmark_rows(path, "ranks", "ratio")) ratios[row.name][row.x] = row.y;
  std::vector<Series> all;
  for (const auto& [name, of_ranks] : ratios) {
    Series series{name, {}, {}};
    for (const auto& [ranks, ratio] : of_ranks) {
      series.x.push_back(ranks);
      series.y.push_back(ratio);
    }
    all.push_back(std::move(series));
  }
  return all;
}

}  // namespace longreach::plot
