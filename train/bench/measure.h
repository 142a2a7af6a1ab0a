// From a setting to a row: check, then time ours and the peer alternately.
#pragma once
#include "layers/ops/cpu/peak.h"
#include "train/bench/contestant.h"

namespace longreach::bench {

// Makes the peer that setting.peer names; throws UserError that lists the known ones.
std::unique_ptr<Contestant> make_peer(const BenchCase& bench_case, const Setting& setting,
                                      const Problem& problem);
std::vector<std::string> peer_names();

// A row without numbers says why in `refused`: a result or a rate that cannot be, a kernel or a peer that
// fails. Throws UserError when the peer cannot do the case or is not installed.
Row measure(const BenchCase& bench_case, const Setting& setting, const Peak& peak);

// The samples of one contest, seconds a call.
struct Samples {
  std::vector<Timing> ours, peer;
};
// `rounds` rounds; in each, both run long enough for the clock (20 ms or one call), and who begins changes
// from round to round. peer may be null.
Samples alternate(Timed& ours, Timed* peer, int rounds);

// Times, rates and ratio of a row whose setting, flops and peer_same_function are known. dense_flops: of a
// peer that computes dense attention instead.
void fill_row(const Samples& samples, double dense_flops, Peak peak, Row& row);

// Seconds that count: process time, which is fair to one thread on a shared machine; with more it would count
// work and not waiting, and wall time is taken.
std::vector<double> judged(const std::vector<Timing>& samples, int threads);

// The share of the peak that `flops` in `seconds` are. The peak is measured again before a rate is refused
// (Refusal): whoever shared the core's units at the first time made it look small.
double share_of_peak(const std::string& who, double flops, double seconds, const std::string& dtype,
                     int threads, Peak& peak);

}  // namespace longreach::bench
