#include "layers/attention/common/context/intervals.h"

#include <algorithm>

namespace longreach {

std::vector<Interval> united(std::vector<Interval> intervals) {
  std::sort(intervals.begin(), intervals.end(),
            [](const Interval& a, const Interval& b) { return a.begin < b.begin; });
  std::vector<Interval> result;
  for (const Interval& interval : intervals) {
    if (interval.size() <= 0) continue;
    if (!result.empty() && interval.begin <= result.back().end)
      result.back().end = std::max(result.back().end, interval.end);
    else
      result.push_back(interval);
  }
  return result;
}

int64_t count_in(const std::vector<Interval>& intervals, int64_t begin, int64_t end) {
  int64_t count = 0;
  for (const Interval& interval : intervals)
    count += std::max<int64_t>(std::min(interval.end, end) - std::max(interval.begin, begin), 0);
  return count;
}

Interval part_of(int64_t count, int64_t part, int64_t parts) {
  return {count * part / parts, count * (part + 1) / parts};
}

}  // namespace longreach
