// How the phases of the recurrence kernels are laid over threads. Which tasks exist follows from shapes
// alone.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "layers/ops/parallel.h"
#include "layers/ops/recurrence/kernels.h"

namespace longreach::recurrence_kernels {

// body(task) for every task below count; without waking threads when there is little to do (`work`
// multiply-adds).
template <class F>
void run_tasks(int64_t count, int64_t work, const F& body) {
  constexpr int64_t kWorthThreads = 1 << 16;
  if (work >= kWorthThreads) return parallel_tiles(count, body);
  for (int64_t task = 0; task < count; ++task) body(task);
}

inline int64_t count_tokens(const Shape& shape) {
  int64_t tokens = 0;
  for (int64_t n = 0; n < shape.sequence_count; ++n) tokens += shape.sequences[n].tokens;
  return tokens;
}

// body(sequence, task) with `tasks` tasks a sequence.
template <class F>
void run_whole(const Shape& shape, int64_t tasks, const F& body) {
  const int64_t work = (count_tokens(shape) + shape.sequence_count) * shape.heads * shape.dk * shape.dv;
  run_tasks(shape.sequence_count * tasks, work, [&](int64_t i) { body(i / tasks, i % tasks); });
}

// body(sequence, task, segment of the sequence).
template <class F>
void run_segments(const Shape& shape, int64_t tasks, const F& body) {
  std::vector<std::pair<int64_t, int64_t>> segments;
  for (int64_t n = 0; n < shape.sequence_count; ++n)
    for (int64_t i = 0; i * shape.segment < shape.sequences[n].tokens; ++i) segments.emplace_back(n, i);
  const int64_t count = static_cast<int64_t>(segments.size()) * tasks;
  run_tasks(count, count * shape.segment * shape.dk * shape.dv, [&](int64_t i) {
    const auto [sequence, index] = segments[i / tasks];
    body(sequence, i % tasks, index);
  });
}

// body(sequence, head, strip of 16 state rows).
template <class F>
void run_strips(const Shape& shape, const F& body) {
  const int64_t strips = (shape.dk + 15) / 16, tasks = shape.heads * strips;
  run_tasks(shape.sequence_count * tasks, shape.segment_count * shape.heads * shape.dk * shape.dv,
            [&](int64_t i) { body(i / tasks, i % tasks / strips, i % strips); });
}

// body(sequence, task) for the sequences without tokens.
template <class F>
void run_empty(const Shape& shape, int64_t tasks, const F& body) {
  for (int64_t n = 0; n < shape.sequence_count; ++n) {
    for (int64_t task = 0; shape.sequences[n].tokens == 0 && task < tasks; ++task) body(n, task);
  }
}

}  // namespace longreach::recurrence_kernels
