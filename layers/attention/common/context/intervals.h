// Sets of tokens or rows as intervals.
#pragma once
#include <cstdint>
#include <vector>

#include "distributed/sequence_layout.h"

namespace longreach {

// In order; those that touch or overlap become one, empty ones go.
std::vector<Interval> united(std::vector<Interval> intervals);

// How many of [begin, end) there are among intervals that are apart.
int64_t count_in(const std::vector<Interval>& intervals, int64_t begin, int64_t end);

// Part number `part` of `parts` of 0 to count, in order; parts differ by one at most.
Interval part_of(int64_t count, int64_t part, int64_t parts);

}  // namespace longreach
