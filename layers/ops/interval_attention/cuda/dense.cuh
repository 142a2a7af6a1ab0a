// What the sm_90a kernels of dense attention have in common: rings of tiles between the warp that loads and
// the warpgroups that multiply, products of whole tiles, and the way of accumulators to global memory.
#pragma once
#include "layers/ops/cuda/attention/softmax.cuh"
#include "layers/ops/cuda/hopper.cuh"
#include "layers/ops/interval_attention/cuda/dense_params.h"

namespace longreach::interval {

// Registers of a thread: 128 x (24 + 2 x 240) of the 65536.
inline constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;

// Stages of shared memory: `full` mbarriers, on which copies complete, then as many `empty` ones, at which
// each consumer warp arrives.
template <int kStages>
struct Ring {
  uint32_t barriers;
  int stage = 0, parity = 0;

  static constexpr int kBytes = 2 * kStages * 8;

  __device__ __forceinline__ explicit Ring(uint32_t at) : barriers(at) {}
  __device__ __forceinline__ void initialise() const {
    for (int s = 0; s < kStages; ++s) {
      ptx::mbarrier_init(barriers + 8 * s, 1);
      ptx::mbarrier_init(barriers + 8 * (kStages + s), kDenseConsumers * 4);
    }
  }
  __device__ __forceinline__ uint32_t full() const { return barriers + 8 * stage; }
  __device__ __forceinline__ uint32_t empty() const { return barriers + 8 * (kStages + stage); }
  __device__ __forceinline__ void advance() {
    parity ^= stage == kStages - 1;
    stage = stage == kStages - 1 ? 0 : stage + 1;
  }

  // The producer: waits until the stage is free, and makes it wait for `bytes`.
  __device__ __forceinline__ void begin_fill(int bytes) const {
    ptx::mbarrier_wait(empty(), parity ^ 1);
    ptx::mbarrier_arrive_expect(full(), bytes);
  }
  __device__ __forceinline__ Ring next() const {
    Ring ring = *this;
    ring.advance();
    return ring;
  }
  // Consumers, whole warps.
  __device__ __forceinline__ void wait() const { ptx::mbarrier_wait(full(), parity); }
  __device__ __forceinline__ void release() {
    if (lane_id() == 0) ptx::mbarrier_arrive(empty());
    advance();
  }
};

// Loads kRows rows of a head, as tiles of 64 columns one after another.
template <int kRows, int kSize>
__device__ __forceinline__ void load_rows(uint32_t to, const cuda::EncodedTensorMap& map, uint32_t barrier,
                                          int token, int head, int batch) {
#pragma unroll
  for (int c = 0; c < kSize / kDenseColumns; ++c)
    ptx::tma_load(to + c * kRows * 128, map, barrier, c * kDenseColumns, token, head, batch);
}

// scores = a b^T, not waited for: 64 rows of a, kColumns rows of b, each as tiles of 64 columns.
template <class Element, int kSize, int kColumns>
__device__ __forceinline__ void multiply_rows_async(float (&scores)[kColumns / 8][4], uint32_t a,
                                                    uint32_t b) {
#pragma unroll
  for (int k = 0; k < kSize / 16; ++k) {
    const int chunk = k / 4, step = k % 4 * 2;
    ptx::wgmma<Element>(scores, ptx::wgmma_tile(a + chunk * 64 * 128) + step,
                        ptx::wgmma_tile(b + chunk * kColumns * 128) + step, k > 0);
  }
}

// acc += weights b, not waited for: 64 x kDepth weights, kDepth rows of b.
template <class Element, int kSize, int kDepth>
__device__ __forceinline__ void multiply_weights_async(float (&acc)[kSize / 8][4],
                                                       const uint32_t (&weights)[kDepth / 16][4],
                                                       uint32_t b) {
#pragma unroll
  for (int k = 0; k < kDepth / 16; ++k)
    ptx::wgmma<Element>(acc, weights[k], ptx::wgmma_tile(b, kDepth * 128) + k * 128);
}

// Sums as a first factor.
template <class Element, int kTiles>
__device__ __forceinline__ void pack_rows(uint32_t (&packed)[kTiles / 2][4], const float (&x)[kTiles][4]) {
#pragma unroll
  for (int k = 0; k < kTiles / 2; ++k)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      packed[k][i] = Element::pack(x[2 * k + i / 2][i % 2 * 2], x[2 * k + i / 2][i % 2 * 2 + 1]);
}

// The part of a block: which queries, and how many tiles of keys they see.
struct DenseQueries {
  int first, head, batch, shift, tiles;

  __device__ __forceinline__ DenseQueries(const DenseProblem& p, int key_tile) {
    // Under a causal mask the last tiles are the longest: they begin first.
    const BlockPlace place(blockIdx.x, p.tile_count, p.heads);
    first = (p.tile_count - 1 - place.tile) * kDenseRows;
    head = place.head;
    batch = place.batch;
    shift = p.keys - p.queries;
    const int last = min(first + kDenseRows, p.queries) - 1;
    const int end = p.causal ? min(max(last + shift + 1, 0), p.keys) : p.keys;
    tiles = (end + key_tile - 1) / key_tile;
  }
  // One beyond the last key that a query sees.
  __device__ __forceinline__ int end_of(const DenseProblem& p, int query) const {
    return p.causal ? min(query + shift + 1, p.keys) : p.keys;
  }
};

// This thread's warpgroup among the consumers, and its warp and thread in it. The shuffle tells the compiler
// that a warp agrees on its group, so that what follows from it lies in uniform registers.
struct Consumer {
  int group, warp, thread;

  __device__ __forceinline__ Consumer()
      : group(__shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / 128 - 1, 0)),
        warp(static_cast<int>(threadIdx.x) % 128 / 32),
        thread(static_cast<int>(threadIdx.x) % 128) {}
};

// The two warpgroups start their products in turns, so that one's softmax runs beside the other's products
// (FlashAttention-3's ping-pong). The first turn is group 0's, the last group 1's; both have equally many.
struct Turns {
  static constexpr int kFirstBarrier = 1 + kDenseConsumers, kThreads = 128 * kDenseConsumers;
  int group;

  __device__ __forceinline__ void begin(bool first) const {
    if (!first || group != 0) ptx::named_barrier(kFirstBarrier + group, kThreads);
  }
  __device__ __forceinline__ void pass(bool last) const {
    if (!last || group == 0) ptx::named_barrier_arrive(kFirstBarrier + (group ^ 1), kThreads);
  }
};

// Writes a warpgroup's 64 rows through `shared`, tiles that nothing reads any more.
template <class Element, int kSize>
__device__ __forceinline__ void store_rows(uint32_t shared, const float (&acc)[kSize / 8][4],
                                           const float (&factor)[2], const cuda::EncodedTensorMap& map,
                                           const Consumer& at, int token, int head, int batch) {
  const int row = at.warp * 16 + (lane_id() >> 2);
#pragma unroll
  for (int n = 0; n < kSize / 8; ++n)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint32_t to =
          shared + n / 8 * 64 * 128 + (row + h * 8) * 128 + ((n % 8 ^ (row & 7)) << 4) + (lane_id() & 3) * 4;
      ptx::store_shared(to, Element::pack(acc[n][h * 2] * factor[h], acc[n][h * 2 + 1] * factor[h]));
    }
  ptx::proxy_fence();
  ptx::named_barrier(1 + at.group, 128);
  if (at.thread != 0) return;
#pragma unroll
  for (int c = 0; c < kSize / kDenseColumns; ++c)
    ptx::tma_store(shared + c * 64 * 128, map, c * kDenseColumns, token, head, batch);
  ptx::tma_store_commit();
  ptx::tma_store_wait_read();
}

}  // namespace longreach::interval
