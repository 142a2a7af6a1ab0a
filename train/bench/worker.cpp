// Both ends of the pipe between the program and its measuring processes.
#include "train/bench/worker.h"

#include <algorithm>
#include <iostream>

#include "core/error.h"
#include "core/exec_words.h"
#include "layers/ops/cpu/parallel.h"
#include "train/bench/child_process.h"
#include "train/bench/decoding.h"
#include "train/bench/layer.h"
#include "train/bench/measure.h"
#include "train/bench/training.h"

namespace longreach::bench {
namespace {

using nlohmann::json;

std::vector<std::pair<std::string, std::string>> thread_environment(int threads) {
  const std::string count = std::to_string(threads);
  return {{"OMP_NUM_THREADS", count},
          {"MKL_NUM_THREADS", count},
          {"OMP_DYNAMIC", "FALSE"},
          {"MKL_DYNAMIC", "FALSE"}};
}

std::unique_ptr<ChildProcess> start_worker(const json& job, int threads) {
  auto worker = std::make_unique<ChildProcess>(std::vector<std::string>{this_program(), "bench", "--worker"},
                                               thread_environment(threads));
  worker->write_line(job.dump());
  return worker;
}

json parse_line(const std::string& line) {
  json value = json::parse(line, nullptr, false);
  check<Error>(value.is_object(), "bench: not an answer of a worker: ", one_line(line, 200));
  check<UserError>(!value.contains("error"), value.value("error", ""));
  return value;
}

std::string end_of(int code) {
  return code > 128 ? text("ended by signal ", code - 128) : text("ended with exit code ", code);
}

void time_settings(const json& job) {
  const Peak peak = measure_peak();
  std::cout << json{{"float32", peak.float32}, {"bfloat16", peak.bfloat16}}.dump() << std::endl;
  const std::vector<BenchCase> cases = bench_cases();
  for (const json& one : job.at("settings")) {
    const auto setting = one.get<Setting>();
    const Row row = is_layer(setting.name) ? measure_layer(setting, peak)
                                           : measure(find_case(cases, setting.name), setting, peak);
    std::cout << json(row).dump() << std::endl;
  }
}

}  // namespace

Report measure_in_workers(const std::vector<Setting>& settings,
                          const std::function<void(const Row&)>& on_row) {
  std::vector<int> thread_counts;
  for (const Setting& one : settings) {
    if (std::ranges::find(thread_counts, one.threads) == thread_counts.end())
      thread_counts.push_back(one.threads);
  }
  Report report;
  const auto add = [&](const Row& row) {
    report.rows.push_back(row);
    on_row(row);
  };
  for (const int threads : thread_counts) {
    std::vector<Setting> mine;
    std::ranges::copy_if(settings, std::back_inserter(mine),
                         [&](const Setting& s) { return s.threads == threads; });
    const auto worker = start_worker({{"threads", threads}, {"settings", mine}}, threads);
    std::string line;
    if (worker->read_line(line)) {
      const json peak = parse_line(line);
      report.peak = {peak.value("float32", 0.0), peak.value("bfloat16", 0.0)};
    }
    size_t done = 0;
    for (; done < mine.size() && worker->read_line(line); ++done) add(parse_line(line).get<Row>());
    const int code = worker->wait();
    for (; done < mine.size(); ++done) {
      add(Row{.setting = mine[done], .refused = text("the measuring process ", end_of(code))});
    }
  }
  return report;
}

MemoryFigure memory_in_worker(const Setting& setting) {
  const auto worker = start_worker({{"threads", setting.threads}, {"memory", setting}}, setting.threads);
  std::string line;
  if (worker->read_line(line)) return parse_line(line).get<MemoryFigure>();
  throw Error(text("bench memory: the measuring process ", end_of(worker->wait())));
}

namespace {

// A row for each setting, in a process of its own that is asked for it under `word`.
template <class Row, class Setting>
std::vector<Row> rows_of_workers(const char* word, const std::vector<Setting>& settings,
                                 const std::function<void(const Row&)>& on_row) {
  std::vector<Row> rows;
  for (const Setting& setting : settings) {
    const auto worker = start_worker({{"threads", setting.threads}, {word, setting}}, setting.threads);
    std::string line;
    const bool answered = worker->read_line(line);
    const Row dead{.setting = setting, .refused = "the measuring process ended without an answer"};
    rows.push_back(answered ? parse_line(line).get<Row>() : dead);
    on_row(rows.back());
  }
  return rows;
}

}  // namespace

std::vector<TrainingRow> measure_training_in_workers(const std::vector<TrainingSetting>& settings,
                                                     const std::function<void(const TrainingRow&)>& on_row) {
  return rows_of_workers<TrainingRow>("training", settings, on_row);
}

std::vector<DecodingRow> measure_decoding_in_workers(const std::vector<DecodingSetting>& settings,
                                                     const std::function<void(const DecodingRow&)>& on_row) {
  return rows_of_workers<DecodingRow>("decoding", settings, on_row);
}

int worker_main() {
  std::string line;
  std::getline(std::cin, line);
  try {
    const json job = json::parse(line);
    set_num_threads(job.at("threads").get<int>());  // before any parallel work
    if (job.contains("memory")) {
      const auto setting = job.at("memory").get<Setting>();
      const MemoryFigure figure = is_layer(setting.name)
                                      ? layer_memory_figure(setting)
                                      : memory_figure(find_case(bench_cases(), setting.name), setting);
      std::cout << json(figure).dump() << std::endl;
    } else if (job.contains("training")) {
      const auto setting = job.at("training").get<TrainingSetting>();
      std::cout << json(measure_training(setting, measure_peak())).dump() << std::endl;
    } else if (job.contains("decoding")) {
      const auto setting = job.at("decoding").get<DecodingSetting>();
      std::cout << json(measure_decoding(setting, measure_peak())).dump() << std::endl;
    } else {
      time_settings(job);
    }
  } catch (const std::exception& error) {
    std::cout << json{{"error", one_line(error.what())}}.dump() << std::endl;
    return 1;
  }
  return 0;
}

}  // namespace longreach::bench
