#include "train/program/long_context_report.h"

#include <filesystem>
#include <fstream>
#include <iomanip>

#include "train/program/plot/gnuplot.h"
#include "train/warn.h"

namespace longreach {
namespace {

using Json = nlohmann::ordered_json;
using Figure = double (LongContextCell::*)() const;

std::vector<LongContextCell> cells_of(const std::string& task, const std::vector<LongContextCell>& cells) {
  std::vector<LongContextCell> own;
  for (const LongContextCell& cell : cells)
    if (cell.task == task) own.push_back(cell);
  return own;
}

Json to_json(const LongContextCell& cell) {
  Json json{
      {"length", cell.length}, {"depth", cell.depth}, {"accuracy", cell.accuracy()}, {"nll", cell.nll()}};
  for (const LongContextAnswer& answer : cell.answers)
    json["answers"].push_back({{"expected", answer.expected},
                               {"reply", answer.reply},
                               {"right", answer.right},
                               {"nll", answer.nll},
                               {"tokens", answer.tokens},
                               {"depth", answer.depth}});
  return json;
}

std::string percent(double share) { return text(std::fixed, std::setprecision(0), 100 * share, "%"); }
std::string nats(double nll) { return text(std::fixed, std::setprecision(3), nll); }

// Cells lie row by row; the last column is the mean of a row.
std::string table(const LongContextOptions& options, const std::vector<LongContextCell>& cells, Figure figure,
                  std::string (*print)(double)) {
  std::ostringstream out;
  out << "| tokens |";
  for (const double depth : options.depths) out << std::setw(7) << depth << " |";
  out << "    all |\n|-------:|";
  for (size_t i = 0; i <= options.depths.size(); ++i) out << "-------:|";
  size_t at = 0;
  for (const int64_t length : options.lengths) {
    out << "\n|" << std::setw(7) << length << " |";
    double sum = 0;
    for (size_t i = 0; i < options.depths.size(); ++i, ++at) {
      const double value = (cells[at].*figure)();
      sum += value;
      out << std::setw(7) << print(value) << " |";
    }
    out << std::setw(7) << print(sum / static_cast<double>(options.depths.size())) << " |";
  }
  out << "\n";
  return out.str();
}

plot::HeatMap heat_map(const std::string& title, const LongContextOptions& options,
                       const std::vector<LongContextCell>& cells, Figure figure) {
  plot::HeatMap map{.title = title,
                    .x = "depth",
                    .y = "tokens",
                    .rows = std::ssize(options.lengths),
                    .columns = std::ssize(options.depths)};
  for (const LongContextCell& cell : cells) map.values.push_back(static_cast<float>((cell.*figure)()));
  for (const double depth : options.depths) map.x_tics.push_back(text(depth));
  for (const int64_t length : options.lengths) map.y_tics.push_back(text(length));
  return map;
}

void draw(const std::string& file, const std::string& task, const LongContextOptions& options,
          const std::vector<LongContextCell>& cells) {
  plot::HeatMap right = heat_map(task + ": right answers", options, cells, &LongContextCell::accuracy);
  right.range = {0.0, 1.0};
  const plot::HeatMap nll = heat_map("nats a token of the answer", options, cells, &LongContextCell::nll);
  plot::draw(file, [&](const std::string& drawn) { return plot::heat_maps_script(drawn, {right, nll}); });
}

void write(const std::string& path, const std::string& contents) {
  std::ofstream file(path);
  file << contents;
  check(file.flush().good(), one_line(path), ": cannot be written");
}

}  // namespace

nlohmann::ordered_json to_json(const SavedModel& saved, const LongContextOptions& options, bool chat,
                               const std::vector<LongContextCell>& cells) {
  Json json{
      {"checkpoint", saved.path}, {"step", saved.step}, {"seed", options.seed}, {"chat_template", chat}};
  if (!options.haystack.empty()) json["haystack"] = options.haystack;
  for (const std::string& task : options.tasks) {
    Json entry{{"task", task}};
    for (const LongContextCell& cell : cells_of(task, cells)) entry["cells"].push_back(to_json(cell));
    json["tasks"].push_back(entry);
  }
  return json;
}

std::string to_tables(const LongContextOptions& options, const std::vector<LongContextCell>& cells) {
  std::string tables;
  for (const std::string& task : options.tasks) {
    const std::vector<LongContextCell> own = cells_of(task, cells);
    if (!tables.empty()) tables += "\n";
    tables += text(task, ": right answers (samples of each length and depth: ", options.samples, ")\n\n",
                   table(options, own, &LongContextCell::accuracy, percent), "\n", task,
                   ": negative log-likelihood of the answer, nats a token\n\n",
                   table(options, own, &LongContextCell::nll, nats));
  }
  return tables;
}

std::vector<std::string> write_report(const std::string& folder, const nlohmann::ordered_json& json,
                                      const LongContextOptions& options,
                                      const std::vector<LongContextCell>& cells) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  std::vector<std::string> files{folder + "/long_context.json", folder + "/long_context.md"};
  write_json(files[0], json);
  write(files[1], to_tables(options, cells));
  for (const std::string& task : options.tasks) {
    const std::string picture = folder + "/" + task + ".png";
    try {
      draw(picture, task, options, cells_of(task, cells));
      files.push_back(picture);
    } catch (const UserError& error) {  // the figures are there
      warn(picture + ": is not drawn: " + error.what());
    }
  }
  return files;
}

void write_json(const std::string& path, const nlohmann::ordered_json& json) {
  // A path is any bytes; what is no UTF-8 in it becomes U+FFFD.
  write(path, json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace longreach
