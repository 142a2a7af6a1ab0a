// Backward pass of dense attention for sm_90a, the equations of backward.cuh, after row_terms (rows.cuh).
// Without atomics: every gradient is summed by one warpgroup in a fixed order.
//
// Work: query_gradient has 128 queries a block and streams tiles of keys and values; key_gradient has 128
// keys and streams tiles of queries, dO and terms, for all query heads of its key head one after another. One
// thread loads, two warpgroups have 64 rows each. Scores and gradients of weights come from shared memory by
// wgmma, S^T = K Q^T in key_gradient, so that dS and P go from registers into the second products. The last
// products of a tile run beside the first of the next.
// Memory traffic: held rows once, streamed rows once a block that sees them; results leave by TMA.
// Limits: as dense_forward.cuh, and equally many key and value heads.
#pragma once
#include "layers/ops/interval_attention/cuda/dense.cuh"

namespace longreach::interval {

// Two held tiles of 64 rows a warpgroup, then stages of two streamed tiles of kColumns rows and their terms.
template <int kSize, int kTileColumns, int kTermBytes>
struct DenseBackwardLayout {
  static constexpr int kColumns = kTileColumns;
  static constexpr int kStages = dense_backward_stages(kSize);
  static constexpr int kTileBytes = kColumns * kSize * 2, kHeldBytes = 64 * kSize * 2;
  static constexpr int kStageBytes = 2 * kTileBytes + kTermBytes;
  using StageRing = Ring<kStages>;
  uint32_t first_held, second_held, stages, terms, held_barrier;
  StageRing ring;

  __device__ __forceinline__ explicit DenseBackwardLayout(uint32_t shared)
      : first_held(shared),
        second_held(first_held + kDenseConsumers * kHeldBytes),
        stages(second_held + kDenseConsumers * kHeldBytes),
        terms(stages + kStages * 2 * kTileBytes),
        held_barrier(terms + kStages * kTermBytes),
        ring(held_barrier + 8) {}
  __device__ __forceinline__ uint32_t first_tile(const StageRing& at) const {
    return stages + at.stage * 2 * kTileBytes;
  }
  __device__ __forceinline__ uint32_t second_tile(const StageRing& at) const {
    return first_tile(at) + kTileBytes;
  }
  __device__ __forceinline__ uint32_t terms_of(const StageRing& at) const {
    return terms + at.stage * kTermBytes;
  }

  __device__ __forceinline__ void load_held(const cuda::EncodedTensorMap& first,
                                            const cuda::EncodedTensorMap& second, int token, int head,
                                            int batch) const {
    ptx::mbarrier_arrive_expect(held_barrier, 2 * kDenseConsumers * kHeldBytes);
    for (int g = 0; g < kDenseConsumers; ++g) {
      load_rows<64, kSize>(first_held + g * kHeldBytes, first, held_barrier, token + g * 64, head, batch);
      load_rows<64, kSize>(second_held + g * kHeldBytes, second, held_barrier, token + g * 64, head, batch);
    }
  }
  __device__ __forceinline__ void load_stage(const StageRing& at, const cuda::EncodedTensorMap& first,
                                             const cuda::EncodedTensorMap& second, int token, int head,
                                             int batch) const {
    at.begin_fill(kStageBytes);
    load_rows<kColumns, kSize>(first_tile(at), first, at.full(), token, head, batch);
    load_rows<kColumns, kSize>(second_tile(at), second, at.full(), token, head, batch);
  }
};

// A warpgroup's scores and gradients of weights of a tile: products of a held tile with a streamed one, not
// waited for.
template <class Element, int kSize, int kColumns>
struct DenseTile {
  float scores[kColumns / 8][4], gradients[kColumns / 8][4];  // (8-column tiles, elements of a lane)

  __device__ __forceinline__ void start_scores(uint32_t held, uint32_t streamed) {
    start(scores, held, streamed);
  }
  __device__ __forceinline__ void start_gradients(uint32_t held, uint32_t streamed) {
    start(gradients, held, streamed);
  }

 private:
  __device__ __forceinline__ static void start(float (&product)[kColumns / 8][4], uint32_t held,
                                               uint32_t streamed) {
    ptx::wgmma_fence();
    multiply_rows_async<Element, kSize, kColumns>(product, held, streamed);
    ptx::wgmma_commit();
  }
};

// acc += factors tile, not waited for.
template <class Element, int kSize, int kColumns>
__device__ __forceinline__ void start_gradient(float (&acc)[1][kSize / 8][4],
                                               uint32_t (&factors)[kColumns / 16][4], uint32_t tile) {
  ptx::wgmma_hold(acc[0]);
  ptx::wgmma_hold(factors);
  ptx::wgmma_fence();
  multiply_weights_async<Element, kSize, kColumns>(acc[0], factors, tile);
  ptx::wgmma_commit();
}

template <class Layout>
__device__ __forceinline__ void initialise_barriers(const Layout& layout) {
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(layout.held_barrier, 1);
    layout.ring.initialise();
    ptx::mbarrier_init_fence();
  }
  __syncthreads();
}

template <int kSize>
using QueryGradientLayout = DenseBackwardLayout<kSize, dense_query_gradient_columns(kSize), 0>;
template <int kSize>
using KeyGradientLayout = DenseBackwardLayout<kSize, kDenseKeyGradientColumns, kDenseTermBytes>;

// One warpgroup's rows of queries with a tile of keys.
template <class Element, int kSize>
struct QueryGradientTile : DenseTile<Element, kSize, QueryGradientLayout<kSize>::kColumns> {
  static constexpr int kColumns = QueryGradientLayout<kSize>::kColumns;
  using Base = DenseTile<Element, kSize, kColumns>;
  using Base::gradients;
  using Base::scores;
  uint32_t factors[kColumns / 16][4];  // (16-key tiles, pairs of a lane)

  // Scores become weights. Row h sees keys up to end[h], all rows those up to all_see.
  __device__ __forceinline__ void weigh(const DenseProblem& p, int first_key, int all_see,
                                        const int (&end)[2], const CudaTerms (&terms)[2]) {
    ptx::wgmma_hold(scores);
    // Before the exponentials: predicates of all elements, kept for later, do not fit.
    if (first_key + kColumns > all_see) {
      const int key = first_key + (lane_id() & 3) * 2;
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          scores[n][e] = key + n * 8 + (e & 1) < end[e >> 1] ? scores[n][e] : -INFINITY;
    }
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        scores[n][e] = ptx::exp2_approx(fmaf(scores[n][e], p.scale_log2, -terms[e >> 1].lse));
  }
  // Gradients of weights become gradients of scores, packed as factors.
  __device__ __forceinline__ void differentiate(const CudaTerms (&terms)[2]) {
    ptx::wgmma_hold(gradients);
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) gradients[n][e] = scores[n][e] * (gradients[n][e] - terms[e >> 1].delta);
    pack_rows<Element>(factors, gradients);
  }
};

template <class Element, int kSize>
__device__ __forceinline__ void sum_query_gradient(const DenseBackward& params,
                                                   const QueryGradientLayout<kSize>& at,
                                                   const DenseQueries& block) {
  using Layout = QueryGradientLayout<kSize>;
  constexpr int kColumns = Layout::kColumns;
  const DenseProblem& p = params.problem;
  const Consumer me;
  const int first = block.first + me.group * 64, query = first + me.warp * 16 + (lane_id() >> 2);
  const int end[2] = {block.end_of(p, query), block.end_of(p, query + 8)}, all_see = block.end_of(p, first);
  const uint32_t queries = at.first_held + me.group * Layout::kHeldBytes;
  const uint32_t d_outputs = at.second_held + me.group * Layout::kHeldBytes;
  const CudaTerms* head_terms =
      params.terms + (static_cast<int64_t>(block.batch) * p.heads + block.head) * p.queries;

  CudaTerms terms[2];  // (rows of a lane)
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float2 both = make_float2(INFINITY, 0.0f);
    if (query + h * 8 < p.queries) both = *reinterpret_cast<const float2*>(head_terms + query + h * 8);
    terms[h] = {both.x, both.y};
  }

  float acc[1][kSize / 8][4];  // (1, 8-column tiles of Q, elements of a lane)
  QueryGradientTile<Element, kSize> tile;
  cuda::clear(acc);
  typename Layout::StageRing filled = at.ring, done = at.ring;
  const auto start = [&] {
    tile.start_scores(queries, at.first_tile(filled));
    tile.start_gradients(d_outputs, at.second_tile(filled));
  };
  // Stands between the exponentials and the wait for the gradients of weights, beside whose product they run:
  // ptxas moves nothing across a wait that it cannot leave out (dense_forward.cuh). After the last tile that
  // wait is for its own stage, which is full.
  const auto await_tile = [&](int index) { (index < block.tiles ? filled.next() : filled).wait(); };
  ptx::mbarrier_wait(at.held_barrier, 0);
  if (block.tiles > 0) {
    filled.wait();
    start();
    ptx::wgmma_wait<1>();
    tile.weigh(p, 0, all_see, end, terms);
    await_tile(1);
    ptx::wgmma_wait<0>();
    tile.differentiate(terms);
#pragma unroll 1
    for (int next = 1; next < block.tiles; ++next) {
      start_gradient<Element, kSize, kColumns>(acc, tile.factors, at.first_tile(done));
      filled.advance();
      start();
      ptx::wgmma_wait<1>();
      ptx::wgmma_hold(acc[0]);
      ptx::wgmma_hold(tile.factors);
      done.release();
      tile.weigh(p, next * kColumns, all_see, end, terms);
      await_tile(next + 1);
      ptx::wgmma_wait<0>();
      tile.differentiate(terms);
    }
    start_gradient<Element, kSize, kColumns>(acc, tile.factors, at.first_tile(done));
    ptx::wgmma_wait<0>();
    ptx::wgmma_hold(acc[0]);
  }
  const float factor[2] = {params.scale, params.scale};
  store_rows<Element, kSize>(queries, acc[0], factor, params.dq, me, first, block.head, block.batch);
}

template <class Element, int kSize>
__device__ __forceinline__ void dense_query_gradient(const DenseBackward& params) {
  constexpr int kColumns = QueryGradientLayout<kSize>::kColumns;
  extern __shared__ __align__(1024) char shared[];
  const QueryGradientLayout<kSize> layout(ptx::shared_address(shared));
  const DenseQueries block(params.problem, kColumns);
  initialise_barriers(layout);
  if (threadIdx.x >= 128) {
    ptx::raise_registers<kConsumerRegisters>();
    sum_query_gradient<Element, kSize>(params, layout, block);
    return;
  }
  ptx::lower_registers<kProducerRegisters>();
  if (threadIdx.x != 0) return;
  const int key_head = block.head * params.problem.key_heads / params.problem.heads;
  layout.load_held(params.q, params.d_o, block.first, block.head, block.batch);
  auto ring = layout.ring;
#pragma unroll 1
  for (int tile = 0; tile < block.tiles; ++tile) {
    layout.load_stage(ring, params.k, params.v, tile * kColumns, key_head, block.batch);
    ring.advance();
  }
}

// The part of a block of key_gradient: which keys, and the tiles of queries of each head that see some of
// them.
struct DenseKeys {
  int first, key_head, batch, shift, group, first_tile, end_tile;

  __device__ __forceinline__ explicit DenseKeys(const DenseProblem& p) {
    const BlockPlace place(blockIdx.x, p.tile_count, p.key_heads);
    first = place.tile * kDenseRows;
    key_head = place.head;
    batch = place.batch;
    shift = p.keys - p.queries;
    group = p.heads / p.key_heads;
    first_tile = (p.causal ? max(first - shift, 0) : 0) / kDenseKeyGradientColumns;
    end_tile = (p.queries + kDenseKeyGradientColumns - 1) / kDenseKeyGradientColumns;
  }
};

// One warpgroup's rows of keys with a tile of queries, whose terms lie in shared memory.
template <class Element, int kSize>
struct KeyGradientTile : DenseTile<Element, kSize, kDenseKeyGradientColumns> {
  static constexpr int kColumns = kDenseKeyGradientColumns;
  using Base = DenseTile<Element, kSize, kColumns>;
  using Base::gradients;
  using Base::scores;
  uint32_t weights[kColumns / 16][4], factors[kColumns / 16][4];  // (16-query tiles, pairs of a lane)

  // Scores become weights, packed. Under `border` row h sees queries from begin + 8 h on alone.
  __device__ __forceinline__ void weigh(const DenseProblem& p, uint32_t terms, int first_query, int all_see,
                                        int begin) {
    ptx::wgmma_hold(scores);
    const int query = first_query + (lane_id() & 3) * 2;
    const bool border = first_query < all_see || first_query + kColumns > p.queries;
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
      const float4 pair = terms_of(terms, n);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int here = query + n * 8 + (e & 1);
        const float weight = ptx::exp2_approx(fmaf(scores[n][e], p.scale_log2, -(e & 1 ? pair.z : pair.x)));
        scores[n][e] = !border || (here >= begin + (e >> 1) * 8 && here < p.queries) ? weight : 0.0f;
      }
    }
    pack_rows<Element>(weights, scores);
  }
  // Gradients of weights become gradients of scores, packed as factors.
  __device__ __forceinline__ void differentiate(uint32_t terms) {
    ptx::wgmma_hold(gradients);
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
      const float4 pair = terms_of(terms, n);
#pragma unroll
      for (int e = 0; e < 4; ++e)
        gradients[n][e] = scores[n][e] * (gradients[n][e] - (e & 1 ? pair.w : pair.y));
    }
    pack_rows<Element>(factors, gradients);
  }

 private:
  // lse and delta of this lane's two queries of eight.
  __device__ __forceinline__ static float4 terms_of(uint32_t terms, int n) {
    return ptx::load_shared_4(terms + (n * 8 + (lane_id() & 3) * 2) * static_cast<int>(sizeof(CudaTerms)));
  }
};

template <class Element, int kSize>
__device__ __forceinline__ void sum_key_gradients(const DenseBackward& params,
                                                  const KeyGradientLayout<kSize>& at,
                                                  const DenseKeys& block) {
  using Layout = KeyGradientLayout<kSize>;
  constexpr int kColumns = Layout::kColumns;
  const DenseProblem& p = params.problem;
  const Consumer me;
  const int first = block.first + me.group * 64, key = first + me.warp * 16 + (lane_id() >> 2);
  // The first query that sees the row of this thread (its other row is 8 further on), and the first that sees
  // all rows.
  const int begin = p.causal ? key - block.shift : -8;
  const int all_see = p.causal ? first + 63 - block.shift : 0;
  const uint32_t keys = at.first_held + me.group * Layout::kHeldBytes;
  const uint32_t values = at.second_held + me.group * Layout::kHeldBytes;

  float acc_k[1][kSize / 8][4], acc_v[1][kSize / 8][4];  // (1, 8-column tiles of K and V, elements of a lane)
  KeyGradientTile<Element, kSize> tile;
  cuda::clear(acc_k);
  cuda::clear(acc_v);
  typename Layout::StageRing filled = at.ring, done = at.ring;
  const auto start = [&] {
    filled.wait();
    tile.start_scores(keys, at.first_tile(filled));
  };
  // After the scores. dV starts as soon as there are weights, and runs while the gradients of scores are
  // made. More in flight at once would not fit the registers.
  const auto finish_tile = [&](int index) {
    ptx::wgmma_hold(tile.scores);
    tile.start_gradients(values, at.second_tile(filled));
    tile.weigh(p, at.terms_of(filled), index * kColumns, all_see, begin);
    start_gradient<Element, kSize, kColumns>(acc_v, tile.weights, at.second_tile(filled));
    ptx::wgmma_wait<1>();
    tile.differentiate(at.terms_of(filled));
    ptx::wgmma_wait<0>();
    ptx::wgmma_hold(acc_v[0]);
    ptx::wgmma_hold(tile.weights);
  };
  ptx::mbarrier_wait(at.held_barrier, 0);
  const int steps = block.group * max(block.end_tile - block.first_tile, 0);
  if (steps > 0) {
    int index = block.first_tile;
    start();
    ptx::wgmma_wait<0>();
    finish_tile(index);
#pragma unroll 1
    for (int step = 1; step < steps; ++step) {
      index = index + 1 == block.end_tile ? block.first_tile : index + 1;
      start_gradient<Element, kSize, kColumns>(acc_k, tile.factors, at.first_tile(done));
      filled.advance();
      start();
      ptx::wgmma_wait<0>();
      ptx::wgmma_hold(acc_k[0]);
      ptx::wgmma_hold(tile.factors);
      done.release();
      finish_tile(index);
    }
    start_gradient<Element, kSize, kColumns>(acc_k, tile.factors, at.first_tile(done));
    ptx::wgmma_wait<0>();
    ptx::wgmma_hold(acc_k[0]);
  }
  const float ones[2] = {1.0f, 1.0f}, factor[2] = {params.scale, params.scale};
  store_rows<Element, kSize>(values, acc_v[0], ones, params.dv, me, first, block.key_head, block.batch);
  store_rows<Element, kSize>(keys, acc_k[0], factor, params.dk, me, first, block.key_head, block.batch);
}

template <class Element, int kSize>
__device__ __forceinline__ void dense_key_gradient(const DenseBackward& params) {
  constexpr int kColumns = kDenseKeyGradientColumns;
  extern __shared__ __align__(1024) char shared[];
  const KeyGradientLayout<kSize> layout(ptx::shared_address(shared));
  const DenseProblem& p = params.problem;
  const DenseKeys block(p);
  initialise_barriers(layout);
  if (threadIdx.x >= 128) {
    ptx::raise_registers<kConsumerRegisters>();
    sum_key_gradients<Element, kSize>(params, layout, block);
    return;
  }
  ptx::lower_registers<kProducerRegisters>();
  if (threadIdx.x != 0) return;
  layout.load_held(params.k, params.v, block.first, block.key_head, block.batch);
  auto ring = layout.ring;
#pragma unroll 1
  for (int member = 0; member < block.group; ++member)
#pragma unroll 1
    for (int tile = block.first_tile; tile < block.end_tile; ++tile) {
      const int head = block.key_head * block.group + member;
      layout.load_stage(ring, params.q, params.d_o, tile * kColumns, head, block.batch);
      const int64_t row = (static_cast<int64_t>(block.batch) * p.heads + head) * p.queries + tile * kColumns;
      ptx::tma_load(layout.terms_of(ring), params.term_rows, ring.full(), static_cast<int>(row * 2), 0);
      ring.advance();
    }
}

}  // namespace longreach::interval
