// Minimum, median, ratio by pairs and growth exponent.
#include "train/bench/statistics.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace longreach::bench {

double minimum(const std::vector<double>& samples) {
  check<Error>(!samples.empty(), "minimum of no samples");
  return *std::min_element(samples.begin(), samples.end());
}

double median(std::vector<double> samples) {
  check<Error>(!samples.empty(), "median of no samples");
  std::sort(samples.begin(), samples.end());
  const size_t middle = samples.size() / 2;
  return samples.size() % 2 ? samples[middle] : 0.5 * (samples[middle - 1] + samples[middle]);
}

Ratio ratio_by_pairs(const std::vector<double>& ours, const std::vector<double>& peer) {
  check<Error>(ours.size() == peer.size(), "ratio of ", ours.size(), " samples to ", peer.size());
  std::vector<double> ratios(ours.size());
  std::transform(peer.begin(), peer.end(), ours.begin(), ratios.begin(),
                 [](double p, double o) { return p / o; });
  return {median(ratios), minimum(peer) / minimum(ours)};
}

double growth_exponent(const std::vector<double>& sizes, const std::vector<double>& values) {
  check<Error>(sizes.size() == values.size() && sizes.size() >= 2, "growth needs at least two sizes");
  const auto count = static_cast<double>(sizes.size());
  double mean_x = 0, mean_y = 0, xx = 0, xy = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    mean_x += std::log(sizes[i]) / count;
    mean_y += std::log(values[i]) / count;
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    const double x = std::log(sizes[i]) - mean_x;
    xx += x * x;
    xy += x * (std::log(values[i]) - mean_y);
  }
  return xy / xx;
}

}  // namespace longreach::bench
