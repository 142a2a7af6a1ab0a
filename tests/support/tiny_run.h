// A training run small enough for a test: a hybrid of three mechanisms on generated prose.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/support/program.h"

namespace longreach::test {

// Deterministic text of about `bytes` bytes with words, sentences and structure that a model can learn.
std::string generated_prose(size_t bytes, uint64_t seed);

// Writes a corpus and a config into `folder`; returns the config's path. The run folder is folder/run.
std::string write_tiny_run(const TemporaryFolder& folder);

// `longreach train CONFIG OVERRIDES...`, to its end.
ProgramResult train(const std::string& config, const std::vector<std::string>& overrides = {});

// One line of metrics.jsonl: its numbers by name.
using MetricsLine = std::map<std::string, double>;
std::vector<MetricsLine> read_metrics(const std::string& run_folder);

// step -> loss of the training lines.
std::map<int64_t, double> losses(const std::string& run_folder);

}  // namespace longreach::test
