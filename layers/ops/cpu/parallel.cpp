// The one place where ATen's thread pool is reached, so that kernels need no torch header.
#include "layers/ops/cpu/parallel.h"

#include <ATen/Parallel.h>

#ifndef INTRA_OP_PARALLEL
#error "compile with -fopenmp: at::parallel_for would run everything on one thread"
#endif

#include <algorithm>
#include <atomic>

namespace longreach {

void parallel_for(int64_t begin, int64_t end, int64_t grain,
                  const std::function<void(int64_t, int64_t)>& body) {
  at::parallel_for(begin, end, std::max<int64_t>(grain, 1), body);
}

void parallel_tiles(int64_t count, const std::function<void(int64_t)>& body) {
  const int64_t workers = std::min<int64_t>(count, num_threads());
  std::atomic<int64_t> next{0};
  at::parallel_for(0, workers, 1, [&](int64_t, int64_t) {
    for (int64_t tile = next.fetch_add(1); tile < count; tile = next.fetch_add(1)) body(tile);
  });
}

int num_threads() { return at::in_parallel_region() ? 1 : at::get_num_threads(); }

void set_num_threads(int count) { at::set_num_threads(count); }

}  // namespace longreach
