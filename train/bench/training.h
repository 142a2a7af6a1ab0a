// Whole training steps, ours against PyTorch: the same Llama-like decoder, weights, tokens and AdamW on both
// sides.
#pragma once
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "layers/ops/cpu/peak.h"

namespace longreach::bench {

struct TrainingSetting {
  std::string peer = "eager";  // eager, compile; empty: no peer
  std::string dtype = "float32";
  int threads = 1, rounds = 7;
  int64_t layers = 6, hidden_size = 384, heads = 6, intermediate_size = 1024, vocab_size = 257;
  int64_t tokens = 1024, batch = 4;

  double tokens_a_step() const { return static_cast<double>(batch * tokens); }
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(TrainingSetting, peer, dtype, threads, rounds, layers,
                                                hidden_size, heads, intermediate_size, vocab_size, tokens,
                                                batch)

// Seconds a step: process CPU time at one thread, wall time at more.
struct TrainingRow {
  TrainingSetting setting;
  std::string refused;   // why no number is given; empty when there is one
  std::string products;  // who multiplies float32 (layers/ops/matmul/matmul.h)
  double seconds_min = 0, seconds_median = 0, peer_seconds_min = 0, peer_seconds_median = 0;
  double ratio = 0, ratio_of_minima = 0;  // peer / ours
  double peak_share = 0;                  // of the operations that the algorithm needs
  double loss = 0, peer_loss = 0;         // of the third step
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(TrainingRow, setting, refused, products, seconds_min,
                                                seconds_median, peer_seconds_min, peer_seconds_median, ratio,
                                                ratio_of_minima, peak_share, loss, peer_loss)

std::vector<std::string> training_peer_names();

// The losses of the first three steps must agree with the peer's before anything is timed: within 1e-4 of
// each other in float32, 1e-2 in bfloat16. Throws UserError when the peer is not installed.
TrainingRow measure_training(const TrainingSetting& setting, Peak peak);

// Each in a fresh process; `on_row` sees each row as it comes.
std::vector<TrainingRow> measure_training_in_workers(const std::vector<TrainingSetting>& settings,
                                                     const std::function<void(const TrainingRow&)>& on_row);

}  // namespace longreach::bench
