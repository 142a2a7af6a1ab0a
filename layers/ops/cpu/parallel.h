// Intra-op threads for kernels. parallel.cpp alone includes ATen/Parallel.h, so that kernels stay torch-free.
#pragma once
#include <cstdint>
#include <functional>

namespace longreach {

// Calls body(first, last) over disjoint pieces of [begin, end), on the threads of ATen's pool; pieces are at
// least `grain` long. body must write to places that depend on its indices alone: results do not depend on
// the number of threads. Exceptions of body are rethrown.
void parallel_for(int64_t begin, int64_t end, int64_t grain,
                  const std::function<void(int64_t, int64_t)>& body);

// As parallel_for with pieces of one, handed out one after another to whichever thread is free: for tiles of
// unequal cost. Order of execution is not fixed; results must not depend on it.
void parallel_tiles(int64_t count, const std::function<void(int64_t)>& body);

int num_threads();
void set_num_threads(int count);  // before any parallel work

}  // namespace longreach
