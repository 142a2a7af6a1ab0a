// Draws beside those of the whole vocabulary put in order.
#include "models/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "data/random.h"

namespace longreach {
namespace {

// Logits with equal ones among them; `sharpness` spreads them.
std::vector<double> some_logits(uint64_t seed, size_t vocab, double sharpness) {
  std::vector<double> logits(vocab);
  for (size_t i = 0; i < vocab; ++i)
    logits[i] = sharpness *
                std::floor(static_cast<double>(data::random_bits(seed, i, 0) >> 11) * 0x1p-53 * 1000) / 100;
  return logits;
}

// The ids that may be drawn, with their probabilities, by definition.
std::vector<std::pair<int64_t, double>> head(const std::vector<double>& logits, std::vector<int64_t> ids,
                                             const SamplingOptions& options) {
  std::stable_sort(ids.begin(), ids.end(), [&](int64_t a, int64_t b) { return logits[a] > logits[b]; });
  if (options.top_k > 0) ids.resize(std::min<size_t>(ids.size(), options.top_k));
  const auto weight = [&](int64_t id) {
    return std::exp((logits[id] - logits[ids[0]]) / options.temperature);
  };
  const double all =
      std::accumulate(ids.begin(), ids.end(), 0.0, [&](double sum, int64_t id) { return sum + weight(id); });
  std::vector<std::pair<int64_t, double>> kept;
  double sum = 0;
  for (size_t i = 0; i < ids.size() && (i == 0 || sum < options.top_p * all); ++i) {
    kept.emplace_back(ids[i], weight(ids[i]));
    sum += kept.back().second;
  }
  for (auto& [id, share] : kept) share /= sum;
  return kept;
}

std::vector<int64_t> every_third(int64_t vocab) {
  std::vector<int64_t> ids;
  for (int64_t id = 1; id < vocab; id += 3) ids.push_back(id);
  return ids;
}

TEST(Sampling, DrawsFromTheHeadOfTheRankingByItsShares) {
  const std::vector<int64_t> ids = every_third(3000);
  for (const double sharpness : {0.01, 0.5, 3.0})  // from nearly alike to a few that have it all
    for (const int64_t top_k : {0, 1, 7, 200, 5000})
      for (const double top_p : {1.0, 0.9, 0.01}) {
        const std::vector<double> logits = some_logits(1, 3000, sharpness);
        SamplingOptions options{.temperature = 0.8, .seed = 5};
        options.top_k = top_k;
        options.top_p = top_p;
        const auto kept = head(logits, ids, options);
        constexpr int64_t kDraws = 2000;
        std::vector<double> drawn(logits.size());
        for (int64_t step = 0; step < kDraws; ++step)
          drawn[sample(logits, ids, options, step)] += 1.0 / kDraws;
        double inside = 0, distance = 0;
        for (const auto& [id, share] : kept) {
          inside += drawn[id];
          // Likely ones stand alone, unlikely ones would be noise.
          if (share > 0.02) distance = std::max(distance, std::abs(drawn[id] - share));
        }
        const std::string where =
            std::to_string(sharpness) + " " + std::to_string(top_k) + " " + std::to_string(top_p);
        EXPECT_NEAR(inside, 1.0, 1e-9) << where;
        EXPECT_LE(distance, 4 * std::sqrt(0.25 / kDraws)) << where;
      }
}

TEST(Sampling, ReachesTheEndOfAFlatRanking) {
  const std::vector<double> logits(1000, 1.0);
  const std::vector<int64_t> ids = every_third(1000);
  std::set<int64_t> drawn;
  for (int64_t step = 0; step < 20000; ++step) drawn.insert(sample(logits, ids, {.temperature = 1.0}, step));
  EXPECT_EQ(drawn, std::set<int64_t>(ids.begin(), ids.end()));
}

TEST(Sampling, GreedyTakesTheFirstOfEqualOnes) {
  EXPECT_EQ(sample({0, 2, 2, 5}, {0, 1, 2}, {.temperature = 0.0}, 3), 1);
}

}  // namespace
}  // namespace longreach
