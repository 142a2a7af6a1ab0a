// Most draws end among the first few of a vocabulary's tokens, so that only so many are put in order as a
// draw asks for.
#include "models/sampling.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "layers/basic/initialization.h"

namespace longreach {
namespace {

// In [0, 1), from the seed and the number of the step alone.
double uniform(uint64_t seed, int64_t step) {
  return static_cast<double>(derive_seed(seed, std::to_string(step)) >> 11) * 0x1.0p-53;
}

// Which of two ids is likelier, equal ones by id.
struct Likelier {
  const std::vector<double>& logits;
  bool operator()(int64_t a, int64_t b) const {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  }
};

// Ids from the likeliest on, put in order as far as they are asked for.
class Ranking {
 public:
  Ranking(const std::vector<double>& logits, std::vector<int64_t> ids)
      : likelier_{logits}, ids_(std::move(ids)) {}

  int64_t operator[](int64_t rank) {
    while (rank >= ordered_) order_more();
    return ids_[rank];
  }

 private:
  void order_more() {
    constexpr int64_t kFirst = 64;
    const int64_t next = std::min(std::max(kFirst, 8 * ordered_), std::ssize(ids_));
    const auto begin = ids_.begin() + ordered_, end = ids_.begin() + next;
    if (end != ids_.end()) std::nth_element(begin, end, ids_.end(), likelier_);
    std::sort(begin, end, likelier_);
    ordered_ = next;
  }

  Likelier likelier_;
  std::vector<int64_t> ids_;
  int64_t ordered_ = 0;
};

}  // namespace

int64_t sample(const std::vector<double>& logits, const std::vector<int64_t>& ids,
               const SamplingOptions& options, int64_t step) {
  if (options.temperature == 0.0) return *std::min_element(ids.begin(), ids.end(), Likelier{logits});
  Ranking ranking(logits, ids);
  const double best = logits[ranking[0]];
  const auto weight = [&](int64_t id) { return std::exp((logits[id] - best) / options.temperature); };
  int64_t count = std::ssize(ids);
  double total = 0.0;
  if (options.top_k > 0 && options.top_k < count) {
    count = options.top_k;
    for (int64_t rank = 0; rank < count; ++rank) total += weight(ranking[rank]);
  } else {
    for (const int64_t id : ids) total += weight(id);
  }
  // top-p: the shortest head of the ranking that holds the share p; at least one token.
  if (options.top_p < 1.0) {
    const double wanted = options.top_p * total;
    total = weight(ranking[0]);
    int64_t head = 1;
    while (head < count && total < wanted) total += weight(ranking[head++]);
    count = head;
  }
  double left = uniform(options.seed, step) * total;
  for (int64_t rank = 0; rank < count; ++rank)
    if ((left -= weight(ranking[rank])) < 0.0) return ranking[rank];
  return ranking[count - 1];
}

}  // namespace longreach
