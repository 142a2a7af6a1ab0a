// One measurement that is asked for, and one that was made. Both travel as JSON between the program and the
// fresh processes that it starts to measure in, and rows are what `--json` writes.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace longreach::bench {

struct Setting {
  std::string name;           // of the case
  std::string peer = "sdpa";  // empty: no peer
  int64_t batch = 1, tokens = 8192, heads = 8, kv_heads = 8, head_dim = 64;
  std::string dtype = "float32";  // or bfloat16
  std::string pass = "forward";   // or both: forward and backward
  int threads = 1;
  int rounds = 7;
  std::vector<std::string> options;  // KEY=VALUE of a layer's kind

  bool backward() const { return pass == "both"; }
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Setting, name, peer, batch, tokens, heads, kv_heads, head_dim,
                                                dtype, pass, threads, rounds, options)

// Seconds are process CPU time at one thread and wall time at more.
struct Row {
  Setting setting;
  std::string refused;  // why no number is given; empty when there is one
  // false: the peer is what ours replaces (dense attention), not what it computes
  bool peer_same_function = false;
  double seconds_min = 0, seconds_median = 0, wall_min = 0;
  double peer_seconds_min = 0, peer_seconds_median = 0, peer_wall_min = 0;  // 0 without a peer
  double ratio = 0, ratio_of_minima = 0;  // peer / ours: the median over rounds, and between minima
  double flops = 0;                       // least operations of the pass, whatever the kernel really does
  double peak_share = 0;                  // of the measured peak of that many threads
  double error = 0;                       // largest relative error of ours against the float64 reference

  double nanoseconds_per_token_head() const {
    return 1e9 * seconds_min / static_cast<double>(setting.batch * setting.tokens * setting.heads);
  }
};

void to_json(nlohmann::json& json, const Row& row);
void from_json(const nlohmann::json& json, Row& row);

}  // namespace longreach::bench
