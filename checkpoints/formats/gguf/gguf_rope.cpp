#include "checkpoints/formats/gguf/gguf_rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>

#include "layers/basic/rope.h"

namespace longreach {
namespace {

bool same(const std::vector<double>& ours, const std::vector<float>& theirs) {
  const auto close = [](double a, float b) { return std::abs(a - b) <= 1e-5 * std::abs(a); };
  return ours.size() == theirs.size() && std::equal(ours.begin(), ours.end(), theirs.begin(), close);
}

bool fits(const std::vector<float>& divisors, int64_t head_dim, const RopeConfig& rope) {
  return rope.low_freq_factor > 0 && rope.high_freq_factor > rope.low_freq_factor &&
         rope.original_max_position_embeddings > 0 &&
         same(rope_divisors(rope, head_dim, rope.original_max_position_embeddings), divisors);
}

// A feature pair: its turns a token, and what is left of them.
struct Pair {
  double turns, share;
};

// Wanted: low = 1 and some high, length and factor such that between the bounds
//   1 / divisor = 1 / factor + (1 - 1 / factor) (length * turns - 1) / (high - 1).
class Candidates {
 public:
  Candidates(const std::vector<float>& divisors, int64_t head_dim, const RopeConfig& rope) : rope_(rope) {
    const auto plain = RotaryEmbedding({.theta = rope.theta}, head_dim, 1).inverse_frequencies(1);
    for (size_t i = 0; i < plain.size(); ++i)
      pairs_.push_back({plain[i] / (2 * std::numbers::pi), 1.0 / divisors[i]});
    for (const double length : {8192.0, 4096.0, 2048.0}) add(4.0, length, rope.factor);  // Llama 3.1 to 3.3
    for (double length = 1 << 20; length >= 8; length /= 2) add(4.0, length, rope.factor);
    add_fitting();
  }

  const std::vector<RopeConfig>& all() const { return all_; }

 private:
  void add(double high, double length, double factor) {
    if (!(high > 1.0 && length >= 1.0 && length < 1e9 && factor > 1.0)) return;
    RopeConfig candidate = rope_;
    candidate.factor = factor;
    candidate.low_freq_factor = 1.0;
    candidate.high_freq_factor = high;
    candidate.original_max_position_embeddings = std::llround(length);
    all_.push_back(candidate);
  }

  void add_fitting() {
    std::vector<Pair> scaled, between;
    for (const Pair& pair : pairs_) {
      if (pair.share < 1.0 - 1e-6) scaled.push_back(pair);
      if (pair.share < 1.0 - 1e-6 && pair.share > (1.0 + 1e-6) / rope_.factor) between.push_back(pair);
    }
    if (between.empty()) return add_step(scaled);
    for (const double high : {4.0, 2.0, 8.0, 1.5, 16.0}) {
      const Pair& one = between.front();
      const double share = (one.share - 1.0 / rope_.factor) / (1.0 - 1.0 / rope_.factor);
      add(high, (share * (high - 1.0) + 1.0) / one.turns, rope_.factor);
    }
    if (between.size() > 1) add_line(between.front(), between.back());
    // The factor is not reached where every pair turns within the length: the line alone says what it is.
    for (const double high : {4.0, 2.0, 8.0, 1.5, 16.0}) add_line(scaled.front(), scaled.back(), high);
  }

  // No pair lies between the bounds, which do so between two pairs.
  void add_step(const std::vector<Pair>& scaled) {
    const double length = std::ceil(1.0 / scaled.front().turns) - 1.0;
    double whole = 0;  // the longest wave that is not scaled
    for (const Pair& pair : pairs_)
      if (pair.share >= 1.0 - 1e-6) whole = std::max(whole, 1.0 / pair.turns);
    add(whole > 0 ? std::min(4.0, std::sqrt(length / whole)) : 4.0, length, rope_.factor);
  }

  // Through two pairs, with the factor that is known.
  void add_line(const Pair& a, const Pair& b) {
    const double rest = 1.0 - 1.0 / rope_.factor;
    const double slope = (a.share - b.share) / (a.turns - b.turns) / rest;
    const double at_zero = (a.share - 1.0 / rope_.factor) / rest - slope * a.turns;
    add(std::round((1.0 - 1.0 / at_zero) * 1e3) / 1e3, -slope / at_zero, rope_.factor);
  }
  // Through two pairs, with a bound that is chosen.
  void add_line(const Pair& a, const Pair& b, double high) {
    const double slope = (a.share - b.share) / (a.turns - b.turns), at_zero = a.share - slope * a.turns;
    const double share_at_zero = -1.0 / (high - 1.0);
    const double factor = (1.0 - share_at_zero) / (at_zero - share_at_zero);
    add(high, slope / (1.0 - 1.0 / factor) * (high - 1.0), std::round(factor * 1e4) / 1e4);
  }

  RopeConfig rope_;
  std::vector<Pair> pairs_;
  std::vector<RopeConfig> all_;
};

}  // namespace

std::vector<double> rope_divisors(const RopeConfig& rope, int64_t head_dim, int64_t positions) {
  const std::vector<double> scaled = RotaryEmbedding(rope, head_dim, positions).inverse_frequencies(1);
  std::vector<double> divisors =
      RotaryEmbedding({.theta = rope.theta}, head_dim, positions).inverse_frequencies(1);
  for (size_t i = 0; i < divisors.size(); ++i) divisors[i] /= scaled[i];
  return divisors;
}

bool find_llama3(const std::vector<float>& divisors, int64_t head_dim, RopeConfig& rope) {
  RopeConfig wanted = rope;
  wanted.rope_type = "llama3";
  wanted.factor = *std::max_element(divisors.begin(), divisors.end());
  const bool usual = std::all_of(divisors.begin(), divisors.end(),
                                 [](float divisor) { return divisor >= 1.0F && divisor < 1e6F; });
  if (!usual) return false;
  if (wanted.factor == 1.0) return true;  // nothing is scaled
  const Candidates candidates(divisors, head_dim, wanted);
  for (const RopeConfig& candidate : candidates.all())
    if (fits(divisors, head_dim, candidate)) {
      rope = candidate;
      return true;
    }
  return false;
}

}  // namespace longreach
