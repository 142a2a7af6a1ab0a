// The choice of one row: what choosing from given scores and choosing right after scoring share.
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "layers/ops/selection/kernels.h"

namespace longreach::selection {

// How many of `values` (of blocks that are not forced, best first) mass lets through. forced: their sum.
template <class Score>
int64_t needed_for_mass(const std::vector<Score>& values, int64_t count, double forced, double wanted) {
  int64_t needed = 0;
  // Blocks of no weight bring the sum no nearer, whatever its rounding.
  while (needed < count && forced < wanted && values[needed] > 0) forced += values[needed++];
  return needed;
}

// Appends the row's blocks, ascending, to `blocks` and returns how many; -1 when a candidate's score is NaN.
// values: working memory.
template <class Score>
int64_t choose_row(const Limits& limits, const Row& row, const Score* scores, std::vector<Score>& values,
                   std::vector<int32_t>& blocks) {
  const int64_t first = std::min(row.forced_first, row.candidates),
                last = row.candidates - std::min(row.forced_latest, row.candidates - first),
                spare = std::max<int64_t>(row.top_k - first - (row.candidates - last), 0);
  double total = 0, forced = 0;
  for (int64_t block = 0; block < row.candidates; ++block) {
    total += static_cast<double>(scores[block]);
    if (block < first || block >= last) forced += static_cast<double>(scores[block]);
    if (std::isnan(scores[block])) return -1;
  }
  values.assign(scores + first, scores + last);
  auto count = std::min<int64_t>(spare, last - first);
  if (limits.has_mass) {
    std::partial_sort(values.begin(), values.begin() + count, values.end(), std::greater<>());
    count = needed_for_mass(values, count, forced, limits.mass * total);
  } else if (count > 0 && count < last - first) {
    std::nth_element(values.begin(), values.begin() + (count - 1), values.end(), std::greater<>());
  }
  const bool all = count == last - first;
  const Score cut = count > 0 && !all ? values[count - 1] : Score{};
  // Of the blocks whose score is the cut, the lowest are kept.
  int64_t ties = count;
  if (!all)
    for (int64_t i = 0; i < count; ++i) ties -= values[i] > cut;
  const size_t before = blocks.size();
  for (int64_t block = 0; block < first; ++block) blocks.push_back(static_cast<int32_t>(block));
  for (int64_t block = first; count > 0 && block < last; ++block) {
    const Score score = scores[block];
    if (!all && !(score > cut || (score == cut && ties-- > 0))) continue;
    if (limits.has_threshold && !(static_cast<double>(score) > limits.threshold)) continue;
    blocks.push_back(static_cast<int32_t>(block));
  }
  for (int64_t block = last; block < row.candidates; ++block) blocks.push_back(static_cast<int32_t>(block));
  return static_cast<int64_t>(blocks.size() - before);
}

}  // namespace longreach::selection
