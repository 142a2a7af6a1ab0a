// What the benchmarks make of their samples.
#pragma once
#include <vector>

namespace longreach::bench {

// Of at least one sample; median is the mean of the middle two for an even count.
double minimum(const std::vector<double>& samples);
double median(std::vector<double> samples);

struct Ratio {
  double median = 0;     // of peer[i] / ours[i] over the rounds: what drifts slowly hits both of a pair
  double of_minima = 0;  // minimum(peer) / minimum(ours)
};
// peer / ours: above 1 means that ours is faster. Both hold one sample a round, in order.
Ratio ratio_by_pairs(const std::vector<double>& ours, const std::vector<double>& peer);

// The slope of log(value) against log(size) by least squares: 1 is linear growth. At least two sizes; all
// positive.
double growth_exponent(const std::vector<double>& sizes, const std::vector<double>& values);

}  // namespace longreach::bench
