// Forward pass of dense attention for sm_90a (FlashAttention-3, arXiv 2407.08608), the equations of
// forward.cuh.
//
// Work: a block has 128 queries of one head. One thread loads: Q once, then tiles of 128 keys and values into
// two rings of stages, the last keys first. Two warpgroups have 64 queries each: S = Q K^T by wgmma from
// shared memory, softmax in registers, P V with P from registers. The product P V of a tile runs while the
// next tile's scores become weights, and one warpgroup's products run beside the other's softmax.
// Tiles that cross the causal border or the end of the keys are masked.
// Memory traffic: Q and O once, K and V once a tile of queries (half of that under the causal mask); O leaves
// by TMA.
// Limits: bf16 and fp16, head dims 64 and 128, rows aligned to 16 bytes; at least one key.
#pragma once
#include "layers/ops/interval_attention/cuda/dense.cuh"

namespace longreach::interval {

template <int kSize>
struct DenseForwardLayout {
  static constexpr int kStages = dense_forward_stages(kSize);
  static constexpr int kTileBytes = kDenseKeys * kSize * 2, kHeldBytes = 64 * kSize * 2;
  uint32_t queries, keys, values, query_barrier;
  Ring<kStages> key_ring, value_ring;

  __device__ __forceinline__ explicit DenseForwardLayout(uint32_t shared)
      : queries(shared),
        keys(queries + kDenseConsumers * kHeldBytes),
        values(keys + kStages * kTileBytes),
        query_barrier(values + kStages * kTileBytes),
        key_ring(query_barrier + 8),
        value_ring(key_ring.barriers + Ring<kStages>::kBytes) {}
};

template <int kSize>
__device__ __forceinline__ void produce_forward(const DenseForward& params, DenseForwardLayout<kSize> at,
                                                const DenseQueries& block) {
  using Layout = DenseForwardLayout<kSize>;
  const DenseProblem& p = params.problem;
  const int key_head = block.head * p.key_heads / p.heads, value_head = block.head * p.value_heads / p.heads;
  ptx::mbarrier_arrive_expect(at.query_barrier, kDenseConsumers * Layout::kHeldBytes);
  for (int g = 0; g < kDenseConsumers; ++g)
    load_rows<64, kSize>(at.queries + g * Layout::kHeldBytes, params.q, at.query_barrier,
                         block.first + g * 64, block.head, block.batch);
#pragma unroll 1
  for (int tile = block.tiles - 1; tile >= 0; --tile) {
    at.key_ring.begin_fill(Layout::kTileBytes);
    load_rows<kDenseKeys, kSize>(at.keys + at.key_ring.stage * Layout::kTileBytes, params.k,
                                 at.key_ring.full(), tile * kDenseKeys, key_head, block.batch);
    at.key_ring.advance();
    at.value_ring.begin_fill(Layout::kTileBytes);
    load_rows<kDenseKeys, kSize>(at.values + at.value_ring.stage * Layout::kTileBytes, params.v,
                                 at.value_ring.full(), tile * kDenseKeys, value_head, block.batch);
    at.value_ring.advance();
  }
}

// One warpgroup's rows on their way through the keys.
template <class Element, int kSize>
struct DenseRowState {
  float scores[1][kDenseKeys / 8][4];    // (1, 8-key tiles, elements of a lane)
  float acc[1][kSize / 8][4];            // (1, 8-column tiles of V, elements of a lane)
  float shrink[1][2];                    // (1, rows of this lane)
  uint32_t weights[kDenseKeys / 16][4];  // (16-key tiles, pairs of a lane)
  SoftmaxRows<1> softmax;

  // Scores of a tile become weights; keys from end[h] on are hidden from row h.
  __device__ __forceinline__ void weigh(int first_key, bool border, const int (&end)[2], float scale_log2) {
    if (border) {
      const int key = first_key + (lane_id() & 3) * 2;
#pragma unroll
      for (int n = 0; n < kDenseKeys / 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          scores[0][n][e] = key + n * 8 + (e & 1) < end[e >> 1] ? scores[0][n][e] : -INFINITY;
    }
    softmax.weigh(scores, shrink, scale_log2);
  }
  __device__ __forceinline__ void start_product(uint32_t values) {
    ptx::wgmma_hold(acc[0]);
    ptx::wgmma_hold(weights);
    ptx::wgmma_fence();
    multiply_weights_async<Element, kSize, kDenseKeys>(acc[0], weights, values);
    ptx::wgmma_commit();
  }
  __device__ __forceinline__ void start_scores(uint32_t queries, uint32_t keys) {
    ptx::wgmma_hold(scores[0]);
    ptx::wgmma_fence();
    multiply_rows_async<Element, kSize, kDenseKeys>(scores[0], queries, keys);
    ptx::wgmma_commit();
  }
};

template <class Element, int kSize>
__device__ __forceinline__ void consume_forward(const DenseForward& params, DenseForwardLayout<kSize> at,
                                                const DenseQueries& block) {
  using Layout = DenseForwardLayout<kSize>;
  const DenseProblem& p = params.problem;
  const Consumer me;
  const int first = block.first + me.group * 64, query = first + me.warp * 16 + (lane_id() >> 2);
  const int end[2] = {block.end_of(p, query), block.end_of(p, query + 8)}, all_see = block.end_of(p, first);
  const uint32_t queries = at.queries + me.group * Layout::kHeldBytes;
  const auto key_stage = [&] { return at.keys + at.key_ring.stage * Layout::kTileBytes; };
  const auto value_stage = [&] { return at.values + at.value_ring.stage * Layout::kTileBytes; };

  const Turns turns{me.group};
  DenseRowState<Element, kSize> rows;
  cuda::clear(rows.scores);
  cuda::clear(rows.acc);
  rows.softmax.clear();
  ptx::mbarrier_wait(at.query_barrier, 0);
  if (block.tiles > 0) {
    int first_key = (block.tiles - 1) * kDenseKeys;
    at.key_ring.wait();
    turns.begin(true);
    rows.start_scores(queries, key_stage());
    turns.pass(first_key == 0);
    ptx::wgmma_wait<0>();
    ptx::wgmma_hold(rows.scores[0]);
    at.key_ring.release();
    rows.weigh(first_key, first_key + kDenseKeys > all_see, end, p.scale_log2);
    pack_rows<Element>(rows.weights, rows.scores[0]);
    at.value_ring.wait();
#pragma unroll 1
    for (first_key -= kDenseKeys; first_key >= 0; first_key -= kDenseKeys) {
      at.key_ring.wait();
      turns.begin(false);
      rows.start_scores(queries, key_stage());
      rows.start_product(value_stage());
      turns.pass(first_key == 0);
      ptx::wgmma_wait<1>();
      ptx::wgmma_hold(rows.scores[0]);
      at.key_ring.release();
      rows.weigh(first_key, first_key + kDenseKeys > all_see, end, p.scale_log2);
      // The values of the next product. They are waited for here because ptxas moves nothing across such a
      // wait: it would let the exponentials sink below the wait for P V, and nothing would run beside that
      // product.
      at.value_ring.next().wait();
      ptx::wgmma_wait<0>();
      ptx::wgmma_hold(rows.acc[0]);
      ptx::wgmma_hold(rows.weights);
      at.value_ring.release();
      scale_rows(rows.acc, rows.shrink);
      pack_rows<Element>(rows.weights, rows.scores[0]);
    }
    rows.start_product(value_stage());
    ptx::wgmma_wait<0>();
    ptx::wgmma_hold(rows.acc[0]);
    at.value_ring.release();
  }

  float factor[1][2], lse[1][2];  // (1, rows of a lane)
  rows.softmax.template finish<1, 64>(p.scale_log2, nullptr, 0, 0, factor, lse);
  if ((lane_id() & 3) == 0)
#pragma unroll
    for (int h = 0; h < 2; ++h)
      if (query + h * 8 < p.queries)
        params.lse[(static_cast<int64_t>(block.batch) * p.heads + block.head) * p.queries + query + h * 8] =
            lse[0][h];
  store_rows<Element, kSize>(queries, rows.acc[0], factor[0], params.o, me, first, block.head, block.batch);
}

template <class Element, int kSize>
__device__ __forceinline__ void dense_forward(const DenseForward& params) {
  extern __shared__ __align__(1024) char shared[];
  const DenseForwardLayout<kSize> layout(ptx::shared_address(shared));
  const DenseQueries block(params.problem, kDenseKeys);
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(layout.query_barrier, 1);
    layout.key_ring.initialise();
    layout.value_ring.initialise();
    ptx::mbarrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    ptx::lower_registers<kProducerRegisters>();
    if (threadIdx.x == 0) produce_forward<kSize>(params, layout, block);
  } else {
    ptx::raise_registers<kConsumerRegisters>();
    consume_forward<Element, kSize>(params, layout, block);
  }
}

}  // namespace longreach::interval
