// How a run's speed grows with its ranks: the same training run on each number of them, alternated.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace longreach::bench {

struct ScalingSetting {
  std::string config;            // a TOML file of `train`
  std::vector<int> ranks{1, 2};  // of this machine
  int threads = 1;               // of each rank
  int steps = 12, rounds = 3;
  // Of a step, on any number of ranks (strong scaling); 0: as many a rank as the config says.
  int64_t rows = 0;
};

struct ScalingRow {
  int ranks = 0;
  double tokens_per_second = 0;  // all ranks together: of the median step
  double ratio = 0;              // to the first number of ranks: median over the rounds
  double waited = 0;             // share of the step that rank 0 waits in exchanges
  double bytes = 0;              // that leave rank 0 in a step
  double start_seconds = 0;      // of the program, beside its steps: the fastest
};

// A fresh `longreach train` or `longreach launch --nproc N train` for each round and number of ranks. Throws
// UserError with the run's last line when one fails.
std::vector<ScalingRow> measure_scaling(const ScalingSetting& setting);

}  // namespace longreach::bench
