// What `bench train`, `bench decode` and `bench prefill` share: a whole model against PyTorch, for some
// peers, dtypes and numbers of threads.
#pragma once
#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "train/bench/report.h"

namespace longreach {

template <typename Setting>
struct ModelBench {
  Setting shape;
  std::vector<std::string> peers{"eager"}, dtypes{"float32"};
  std::vector<int> threads{1};
  std::string json_path;

  // One for each of them.
  std::vector<Setting> settings() const {
    std::vector<Setting> all;
    for (const int count : threads)
      for (const std::string& dtype : dtypes)
        for (const std::string& peer : peers) {
          all.push_back(shape);
          all.back().threads = count;
          all.back().dtype = dtype;
          all.back().peer = peer == "none" ? "" : peer;
        }
    return all;
  }
};

// A size, such as --layers: 1 to 2^24.
void add_size(CLI::App& app, const char* name, int64_t& value, const char* help);

// --peer, --dtype and --threads. known_peers: without "none", which is one too.
void add_choices(CLI::App& app, std::vector<std::string>& peers, std::vector<std::string> known_peers,
                 std::vector<std::string>& dtypes, std::vector<int>& threads);
void add_rounds_and_json(CLI::App& app, int& rounds, std::string& json_path);

// Throws UserError where --heads does not divide --hidden-size into even head dimensions.
void expect_heads(int64_t hidden_size, int64_t heads);

// The machine and the load, around what is measured between them, and the rows as JSON where --json is given.
// measure: prints its rows and says what their columns mean. Returns the exit code: 1 where a row was
// refused.
template <typename Row>
int report_rows(const std::string& json_path, const std::function<std::vector<Row>()>& measure) {
  const bench::Machine machine = bench::this_machine();
  bench::print_machine(std::cout, machine);
  const double load_before = bench::load_average();
  const std::vector<Row> rows = measure();
  std::printf("load     %.2f before, %.2f after\n", load_before, bench::load_average());
  std::fflush(stdout);
  if (!json_path.empty()) {
    bench::write_json(json_path, nlohmann::json{{"cpu", machine.cpu}, {"rows", rows}});
    std::cout << "json     " << json_path << "\n";
  }
  return std::any_of(rows.begin(), rows.end(), [](const Row& row) { return !row.refused.empty(); }) ? 1 : 0;
}

}  // namespace longreach
