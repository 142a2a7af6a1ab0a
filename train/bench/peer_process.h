// A peer in Python: a script of tests/benchmarks/peers in the environment that `longreach bench
// --install-peers` makes, asked and answering in JSON, a line each. tests/benchmarks/peers/protocol.py is the
// other end.
#pragma once
#include <ATen/core/Tensor.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "train/bench/child_process.h"

namespace longreach::bench {

class PeerProcess {
 public:
  // Starts SCRIPT.py with that many threads. Throws UserError when the environment or the script is missing.
  PeerProcess(const std::string& script, int threads);

  // Throws UserError with the peer's own words when it cannot, Error when it dies or does not answer in JSON.
  nlohmann::json ask(const nlohmann::json& request);

 private:
  std::string name_;
  ChildProcess process_;
};

// Arrays travel as files of raw float32, outside the timed region: in a temporary folder in scratch_place(),
// which is in memory where the system has such a place. Throws Error when a file cannot be written or is
// short.
std::string scratch_place();
void write_array(const std::string& path, const at::Tensor& tensor);
at::Tensor read_array(const std::string& path, at::IntArrayRef shape);

// ${XDG_CACHE_HOME:-~/.cache}/longreach/peers
std::string peers_environment();

}  // namespace longreach::bench
