// Peers in Python: tests/benchmarks/peers/*.py, each a process in an environment of its own, run turn and
// turn about with ours over a pipe. Arrays travel as raw float32 files in [B, T, H, D] order, outside the
// timed region.
#pragma once
#include "train/bench/contestant.h"

namespace longreach::bench {

// One name a script: sdpa_eager, sdpa_compile, flex, fla_chunk.
std::vector<std::string> python_peer_names();

// Starts the script and hands it the problem. Throws UserError when the environment or the script is missing,
// when the peer cannot do the case (its own words), Error when it dies.
std::unique_ptr<Contestant> python_peer(const BenchCase& bench_case, const Setting& setting,
                                        const Problem& problem);

// Makes the environment of the peers with `python3 -m venv` and pip, and proves that torch can be imported.
// Throws UserError.
void install_peers();

}  // namespace longreach::bench
