// What a training step would take on many devices, from operations and bytes that are counted: an estimate,
// nothing is run.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "distributed/mesh.h"
#include "train/run_config.h"

namespace longreach::bench {

// What is assumed of every device.
struct AssumedDevice {
  double tflops = 400;    // of products, as they are sustained, 10^12 operations a second
  double gigabytes = 50;  // that it sends to others, 10^9 bytes a second
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(AssumedDevice, tflops, gigabytes)

struct Estimate {
  std::string name;
  int64_t ranks = 0;
  double compute_seconds = 0;     // of the dearest rank
  double shared_row_seconds = 0;  // exchanges of rows that ranks share; nothing is computed meanwhile
  double state_seconds = 0;       // those of the model's state that are left to wait for
  double seconds = 0, tokens_per_second = 0;
  double ratio = 0;   // to one device that only computes
  double memory = 0;  // bytes of a rank, as in `train --dry-run`
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Estimate, name, ranks, compute_seconds, shared_row_seconds, state_seconds,
                                   seconds, tokens_per_second, ratio, memory)

// A step of the config, each row one document. Sums of gradients hide behind the backward pass, two thirds of
// the computing, and nothing else hides; of the ranks that share a row eight are asked what they send, and
// the most counts. Latencies count nothing.
Estimate estimate_step(const RunConfig& config, const ParallelDegrees& degrees, const AssumedDevice& device);

}  // namespace longreach::bench
