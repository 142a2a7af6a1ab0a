// One row of the benchmark.
#include "train/bench/measure.h"

#include <algorithm>
#include <cmath>

#include "train/bench/agreement.h"
#include "train/bench/python_peer.h"
#include "train/bench/statistics.h"

namespace longreach::bench {
namespace {

constexpr double kShortest = 0.02;  // seconds a sample at least: a few milliseconds are lost in the clocks

// Calls that fill a sample; the calls also warm caches, page tables and thread pools.
int64_t repeats_for(Timed& contestant) {
  contestant.run(1);
  const double once = std::max(contestant.run(1).wall, 1e-9);
  return std::clamp<int64_t>(static_cast<int64_t>(std::ceil(kShortest / once)), 1, 100000);
}

Timing sample(Timed& contestant, int64_t repeats) {
  const Timing total = contestant.run(repeats);
  return {total.wall / static_cast<double>(repeats), total.cpu / static_cast<double>(repeats)};
}

double shortest_wall(const std::vector<Timing>& samples) { return minimum(judged(samples, 2)); }

AttentionFunction dense_causal() { return interval_attention_case().reference; }

// Results of both sides, before any clock starts.
void check_results(const BenchCase& bench_case, const Setting& setting, const Problem& problem,
                   Contestant& ours, Contestant* peer, Row& row) {
  const Result mine = ours.result();
  row.error = require_reference(setting.name, mine, problem, bench_case.reference, setting.backward());
  if (peer == nullptr) return;
  const Result theirs = peer->result();
  row.peer_same_function = peer->same_function();
  require_reference(setting.peer, theirs, problem,
                    peer->same_function() ? bench_case.reference : dense_causal(), setting.backward());
  if (peer->same_function()) {
    require_same(setting.name, mine, setting.peer, theirs, problem, setting.backward());
  }
}

double rate_of(const Peak& peak, const std::string& dtype) {
  return dtype == "bfloat16" ? peak.bfloat16 : peak.float32;
}

}  // namespace

std::vector<double> judged(const std::vector<Timing>& samples, int threads) {
  std::vector<double> seconds;
  for (const Timing& one : samples) seconds.push_back(threads == 1 ? one.cpu : one.wall);
  return seconds;
}

double share_of_peak(const std::string& who, double flops, double seconds, const std::string& dtype,
                     int threads, Peak& peak) {
  if (flops / seconds / threads > rate_of(peak, dtype)) peak = larger(peak, measure_peak());
  return require_possible_rate(who, flops, seconds, rate_of(peak, dtype), threads);
}

std::vector<std::string> peer_names() {
  std::vector<std::string> names{"sdpa", "dense"};
  for (const std::string& name : python_peer_names()) names.push_back(name);
  return names;
}

std::unique_ptr<Contestant> make_peer(const BenchCase& bench_case, const Setting& setting,
                                      const Problem& problem) {
  if (setting.peer == "sdpa") return sdpa_contestant(bench_case, problem, setting.backward());
  if (setting.peer == "dense") return dense_contestant(bench_case, problem, setting.backward());
  return python_peer(bench_case, setting, problem);
}

Samples alternate(Timed& ours, Timed* peer, int rounds) {
  Samples samples;
  const int64_t our_repeats = repeats_for(ours), peer_repeats = peer ? repeats_for(*peer) : 0;
  for (int round = 0; round < rounds; ++round) {
    const bool peer_begins = round % 2 == 1;
    if (peer && peer_begins) samples.peer.push_back(sample(*peer, peer_repeats));
    samples.ours.push_back(sample(ours, our_repeats));
    if (peer && !peer_begins) samples.peer.push_back(sample(*peer, peer_repeats));
  }
  return samples;
}

void fill_row(const Samples& samples, double dense_flops, Peak peak, Row& row) {
  const Setting& setting = row.setting;
  const std::vector<double> ours = judged(samples.ours, setting.threads);
  row.seconds_min = minimum(ours);
  row.seconds_median = median(ours);
  row.wall_min = shortest_wall(samples.ours);
  row.peak_share =
      share_of_peak(setting.name, row.flops, row.seconds_min, setting.dtype, setting.threads, peak);
  if (samples.peer.empty()) return;
  const std::vector<double> peer = judged(samples.peer, setting.threads);
  row.peer_seconds_min = minimum(peer);
  row.peer_seconds_median = median(peer);
  row.peer_wall_min = shortest_wall(samples.peer);
  const double peer_flops = row.peer_same_function ? row.flops : dense_flops;
  share_of_peak(setting.peer, peer_flops, row.peer_seconds_min, setting.dtype, setting.threads, peak);
  const Ratio ratio = ratio_by_pairs(ours, peer);
  row.ratio = ratio.median;
  row.ratio_of_minima = ratio.of_minima;
}

Row measure(const BenchCase& bench_case, const Setting& setting, const Peak& peak) {
  Row row{.setting = setting};
  try {
    const Problem problem = make_problem(setting);
    const auto ours = local_contestant(bench_case, problem, setting.backward());
    const auto peer = setting.peer.empty() ? nullptr : make_peer(bench_case, setting, problem);
    check_results(bench_case, setting, problem, *ours, peer.get(), row);
    row.flops = bench_case.flops(setting);
    fill_row(alternate(*ours, peer.get(), setting.rounds), softmax_flops(setting, 0), peak, row);
    return row;
  } catch (const UserError&) {
    throw;
  } catch (const std::exception& error) {
    // A Refusal, a kernel that throws, a peer that dies: none leaves a number.
    return Row{.setting = setting, .refused = one_line(error.what())};
  }
}

}  // namespace longreach::bench
