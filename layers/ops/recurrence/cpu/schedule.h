// How the phases of the recurrence kernels are laid over threads. What a task computes follows from shapes
// alone; only how many heads take turns in one task follows from the number of threads, and that changes no
// bit.
#pragma once
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "layers/ops/cpu/parallel.h"
#include "layers/ops/recurrence/kernels.h"

namespace longreach::recurrence_kernels {

// kWhole: a sequence from end to end. The split form: kSum, what one segment adds to a state; kScan, the
// states at all segment borders of a few state rows; kSegment, the results of one segment from these.
enum class Phase : int32_t { kWhole, kSum, kScan, kSegment };
enum class Order : int32_t { kForward, kBackward };

struct Heads {
  int64_t begin, end;
};

struct TaskPlace {
  Phase phase;
  int64_t sequence;
  Heads heads;    // kSum and kScan: one
  int64_t index;  // segment of the sequence; kScan: strip of 16 state rows
};

inline int64_t segment_count(const Shape& shape, const Sequence& sequence) {
  return (sequence.tokens + shape.segment - 1) / shape.segment;
}

// body(task) for every task below count; without waking threads when there is little to do (`work`
// multiply-adds).
template <class F>
void run_tasks(int64_t count, int64_t work, const F& body) {
  constexpr int64_t kWorthThreads = 1 << 16;
  if (work >= kWorthThreads) return parallel_tiles(count, body);
  for (int64_t task = 0; task < count; ++task) body(task);
}

// Whole sequences: as few tasks as keep every thread busy while the longest sequence runs.
template <class F>
void run_whole(const Shape& shape, int64_t group, const F& body) {
  int64_t tokens = 1, longest = 1;
  for (int64_t n = 0; n < shape.sequence_count; ++n) {
    tokens += shape.sequences[n].tokens;
    longest = std::max(longest, shape.sequences[n].tokens);
  }
  const int64_t groups = shape.heads / group;
  const int64_t blocks = std::clamp<int64_t>((longest * num_threads() + tokens - 1) / tokens, 1, groups);
  const int64_t work = (tokens + shape.sequence_count) * shape.heads * shape.dk * shape.dv;
  run_tasks(shape.sequence_count * blocks, work, [&](int64_t i) {
    const int64_t block = i % blocks;
    const Heads heads{block * groups / blocks * group, (block + 1) * groups / blocks * group};
    body(TaskPlace{Phase::kWhole, i / blocks, heads, 0});
  });
}

// A segment of `group` heads a task.
template <class F>
void run_segments(const Shape& shape, Phase phase, int64_t group, const F& body) {
  std::vector<std::pair<int64_t, int64_t>> segments;
  for (int64_t n = 0; n < shape.sequence_count; ++n)
    for (int64_t i = 0; i < segment_count(shape, shape.sequences[n]); ++i) segments.emplace_back(n, i);
  const int64_t groups = shape.heads / group, count = static_cast<int64_t>(segments.size()) * groups;
  run_tasks(count, count * group * shape.segment * shape.dk * shape.dv, [&](int64_t i) {
    const auto [sequence, index] = segments[i / groups];
    const int64_t first = i % groups * group;
    body(TaskPlace{phase, sequence, {first, first + group}, index});
  });
}

// A head and a strip of 16 state rows a task.
template <class F>
void run_scans(const Shape& shape, const F& body) {
  const int64_t strips = (shape.dk + 15) / 16, tasks = shape.heads * strips;
  run_tasks(shape.sequence_count * tasks, shape.segment_count * shape.heads * shape.dk * shape.dv,
            [&](int64_t i) {
              const int64_t sequence = i / tasks, head = i % tasks / strips;
              if (shape.sequences[sequence].tokens > 0)
                body(TaskPlace{Phase::kScan, sequence, {head, head + 1}, i % strips});
            });
}

// All tasks of a pass. Heads of a group depend on each other. The sum of a segment serves the segments after
// it in the order of the pass, so the last one there needs none.
template <class F>
void run_phases(const Shape& shape, bool split, int64_t group, Order order, const F& body) {
  if (!split) return run_whole(shape, group, body);
  run_segments(shape, Phase::kSum, 1, [&](const TaskPlace& place) {
    const int64_t last =
        order == Order::kForward ? segment_count(shape, shape.sequences[place.sequence]) - 1 : 0;
    if (place.index != last) body(place);
  });
  run_scans(shape, body);
  run_segments(shape, Phase::kSegment, group, body);
  for (int64_t n = 0; n < shape.sequence_count; ++n)
    if (shape.sequences[n].tokens == 0) body(TaskPlace{Phase::kWhole, n, {0, shape.heads}, 0});
}

}  // namespace longreach::recurrence_kernels
