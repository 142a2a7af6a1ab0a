// The choice of blocks from scores: forced blocks, then the best candidates, ties to the lowest block. One task
// a row of a list.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "layers/ops/parallel.h"
#include "layers/ops/selection/kernels.h"

namespace longreach::selection {
namespace {

bool forced(const Row& row, int64_t block) {
  return block < row.forced_first || block >= row.candidates - row.forced_latest;
}

// Candidates that are not forced, best first, no more than can be kept.
void rank(const float* scores, const Row& row, int64_t most, std::vector<int32_t>& ranked) {
  ranked.clear();
  for (int64_t block = 0; block < row.candidates; ++block)
    if (!forced(row, block)) ranked.push_back(static_cast<int32_t>(block));
  const auto better = [&](int32_t a, int32_t b) {
    return scores[a] > scores[b] || (scores[a] == scores[b] && a < b);
  };
  const auto kept = ranked.begin() + std::min<int64_t>(most, static_cast<int64_t>(ranked.size()));
  if (kept != ranked.end()) std::nth_element(ranked.begin(), kept, ranked.end(), better);
  ranked.erase(kept, ranked.end());
  std::sort(ranked.begin(), ranked.end(), better);
}

// How many of the ranked blocks threshold and mass let through.
int64_t admitted(const Choice& choice, const float* scores, const Row& row,
                 const std::vector<int32_t>& ranked) {
  auto count = static_cast<int64_t>(ranked.size());
  if (choice.has_threshold)
    count = std::partition_point(ranked.begin(), ranked.end(),
                                 [&](int32_t block) { return scores[block] > choice.threshold; }) -
            ranked.begin();
  if (!choice.has_mass) return count;
  double total = 0, reached = 0;
  for (int64_t block = 0; block < row.candidates; ++block) {
    total += scores[block];
    if (forced(row, block)) reached += scores[block];
  }
  int64_t needed = 0;
  while (needed < count && reached < choice.mass * total) reached += scores[ranked[needed++]];
  return needed;
}

int64_t choose_row(const Choice& choice, const Row& row, const float* scores, int32_t* indices) {
  thread_local std::vector<int32_t> ranked;
  for (int64_t block = 0; block < row.candidates; ++block)
    if (std::isnan(scores[block])) return -1;
  const int64_t first = std::min(row.forced_first, row.candidates),
                latest = std::min(row.forced_latest, row.candidates - first);
  rank(scores, row, std::max<int64_t>(row.top_k - first - latest, 0), ranked);
  ranked.resize(static_cast<size_t>(admitted(choice, scores, row, ranked)));
  for (int64_t block = 0; block < first; ++block) ranked.push_back(static_cast<int32_t>(block));
  for (int64_t block = row.candidates - latest; block < row.candidates; ++block)
    ranked.push_back(static_cast<int32_t>(block));
  std::sort(ranked.begin(), ranked.end());
  std::copy(ranked.begin(), ranked.end(), indices);
  std::fill(indices + ranked.size(), indices + choice.blocks, -1);
  return static_cast<int64_t>(ranked.size());
}

}  // namespace

int64_t choose_cpu(const Choice& choice) {
  std::atomic<int64_t> longest{0};
  std::atomic<bool> nan{false};
  parallel_for(0, choice.lists * choice.row_count, 16, [&](int64_t begin, int64_t end) {
    int64_t most = 0;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t count = choose_row(choice, choice.rows[i % choice.row_count],
                                       choice.scores + i * choice.blocks, choice.indices + i * choice.blocks);
      if (count < 0) nan = true;
      most = std::max(most, count);
    }
    int64_t seen = longest;
    while (most > seen && !longest.compare_exchange_weak(seen, most)) {
    }
  });
  return nan ? -1 : longest.load();
}

}  // namespace longreach::selection
