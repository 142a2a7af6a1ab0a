// Decoding token by token, and reading a prompt at once: ours against PyTorch eager, the memory and the
// arithmetic of this machine.
#pragma once
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "layers/ops/cpu/peak.h"

namespace longreach::bench {

// The sizes are those of SmolLM2-135M; a checkpoint has its own.
struct DecodingSetting {
  std::string checkpoint;      // empty: random weights
  std::string peer = "eager";  // empty: no peer
  std::string dtype = "float32";
  bool prefill = false;
  int threads = 1, rounds = 7;
  int64_t tokens = 128;  // of the prompt
  int64_t steps = 16;    // decoded after it in one sample
  int64_t layers = 30, hidden_size = 576, heads = 9, kv_heads = 3, intermediate_size = 1536,
          vocab_size = 49152;

  double tokens_a_call() const { return static_cast<double>(prefill ? tokens : steps); }
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(DecodingSetting, checkpoint, peer, dtype, prefill, threads,
                                                rounds, tokens, steps, layers, hidden_size, heads, kv_heads,
                                                intermediate_size, vocab_size)

// Seconds a token: process CPU time at one thread, wall time at more.
struct DecodingRow {
  DecodingSetting setting;
  std::string refused;  // why no number is given; empty when there is one
  double seconds_min = 0, seconds_median = 0, peer_seconds_min = 0, peer_seconds_median = 0;
  double ratio = 0, ratio_of_minima = 0;  // peer / ours
  // Decoding: bytes of the weights that a token reads, the pace at which this machine reads as many from one
  // place (the fastest round), and the share of it that was reached, a median over rounds.
  double bytes = 0, bandwidth = 0, bandwidth_share = 0, peer_bandwidth_share = 0;
  // Prefill: of the operations that the algorithm needs.
  double peak_share = 0, peer_peak_share = 0;
  double difference = 0;  // of the logits from the peer's, relative
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(DecodingRow, setting, refused, seconds_min, seconds_median,
                                                peer_seconds_min, peer_seconds_median, ratio, ratio_of_minima,
                                                bytes, bandwidth, bandwidth_share, peer_bandwidth_share,
                                                peak_share, peer_peak_share, difference)

// The logits after the prompt and `steps` tokens fed one by one must agree with the peer's before anything is
// timed: within 1e-4 of them in float32, 5e-2 in bfloat16. Throws UserError when the peer is not installed,
// or does not compute the model.
DecodingRow measure_decoding(const DecodingSetting& setting, Peak peak);

// Each in a fresh process; `on_row` sees each row as it comes.
std::vector<DecodingRow> measure_decoding_in_workers(const std::vector<DecodingSetting>& settings,
                                                     const std::function<void(const DecodingRow&)>& on_row);

}  // namespace longreach::bench
