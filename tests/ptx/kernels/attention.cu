// The interpreter's own test object: causal attention, one head, D = 64, bf16 in and out, with everything
// that the sm_80 kernels use: cp.async in two stages, swizzled tiles, ldmatrix, mma.sync, shuffles, ex2. Each
// fault is the same kernel with one mistake, which the interpreter must see.
#include <math_constants.h>

#include <cstdint>

#include "layers/ops/cuda/ptx.cuh"
#include "tests/ptx/kernels/attention.h"

namespace longreach::ptx {

constexpr int kTile = 64, kDim = 64, kThreads = 128, kTileBytes = kTile * kDim * 2;

// Byte of the 16-byte chunk of a row, chunks permuted within 8 rows so that columns of rows lie in different
// banks.
template <Fault F>
__device__ int chunk_at(int row, int chunk) {
  return row * 128 + ((F == Fault::no_swizzle ? chunk : chunk ^ (row & 7)) << 4);
}

template <Fault F>
__device__ void load_tile(unsigned char* tile, const uint16_t* rows, int first, int count) {
  for (int c = threadIdx.x; c < kTile * 8; c += kThreads) {
    const int row = c >> 3, chunk = c & 7;
    const bool inside = first + row < count;
    const int from = F == Fault::out_of_bounds || inside ? first + row : 0;
    cp_async_16(tile + chunk_at<F>(row, chunk), rows + static_cast<size_t>(from) * kDim + chunk * 8,
                F == Fault::out_of_bounds || inside);
  }
}

// Sums over the four lanes that share a row.
template <Fault F, class Combine>
__device__ float over_row(float x, Combine combine) {
  x = combine(x, __shfl_xor_sync(~0u, x, 1));
  if (F != Fault::missing_shuffle) x = combine(x, __shfl_xor_sync(~0u, x, 2));
  return x;
}

__device__ int lane() { return threadIdx.x & 31; }
__device__ int warp() { return threadIdx.x >> 5; }

// A warp's 16 rows on their way through the keys.
template <Fault F>
struct Rows {
  uint32_t q[4][4];                                            // (16-column steps, 8 x 8 matrices)
  float o[8][4] = {};                                          // (8-column tiles, elements of a lane)
  float top[2] = {-CUDART_INF_F, -CUDART_INF_F}, sum[2] = {};  // (rows of a lane)

  __device__ __forceinline__ void load(const unsigned char* tile_q) {
#pragma unroll
    for (int k = 0; k < 4; ++k)
      ldmatrix_x4(q[k], tile_q + chunk_at<F>(warp() * 16 + (lane() & 15), 2 * k + (lane() >> 4)));
  }
  __device__ __forceinline__ void multiply(float (&s)[8][4], const unsigned char* tile_k) const {
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        uint32_t b[4];
        ldmatrix_x4(b, tile_k + chunk_at<F>(n * 8 + (lane() & 7) + ((lane() >> 4) << 3),
                                            2 * k + ((lane() >> 3) & 1)));
        mma_bf16(s[n], q[k], b[0], b[1]);
        mma_bf16(s[n + 1], q[k], b[2], b[3]);
      }
    }
  }
  // Hides what lies above the diagonal.
  __device__ __forceinline__ static void mask(float (&s)[8][4], bool diagonal) {
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = warp() * 16 + (lane() >> 2) + (e >> 1) * 8;
        const int column = n * 8 + (lane() & 3) * 2 + (e & 1);
        if (diagonal && column > row) s[n][e] = -CUDART_INF_F;
      }
    }
  }
  // Scores become weights; what was summed before shrinks to the new maximum.
  __device__ __forceinline__ void weigh(float (&s)[8][4], float scale_log2) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float most = top[h];
#pragma unroll
      for (int n = 0; n < 8; ++n) most = fmaxf(most, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
      most = over_row<F>(most, [](float a, float b) { return fmaxf(a, b); });
      const float keep = exp2_approx((top[h] - most) * scale_log2);
      top[h] = most;
      sum[h] *= keep;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int e = 2 * h; e < 2 * h + 2; ++e) {
          s[n][e] = exp2_approx((s[n][e] - most) * scale_log2);
          sum[h] += s[n][e];
          o[n][e] *= keep;
        }
      }
    }
  }
  __device__ __forceinline__ void add(const float (&s)[8][4], const unsigned char* tile_v) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const uint32_t a[4] = {pack_bf16(s[2 * k][0], s[2 * k][1]), pack_bf16(s[2 * k][2], s[2 * k][3]),
                             pack_bf16(s[2 * k + 1][0], s[2 * k + 1][1]),
                             pack_bf16(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
      for (int n = 0; n < 8; n += 2) {
        uint32_t b[4];
        ldmatrix_x4_transposed(b, tile_v + chunk_at<F>(k * 16 + (lane() & 15), n + (lane() >> 4)));
        mma_bf16(o[n], a, b[0], b[1]);
        mma_bf16(o[n + 1], a, b[2], b[3]);
      }
    }
  }
  // Through `tile`, of which each warp uses its own rows.
  __device__ __forceinline__ void store(unsigned char* tile, uint16_t* out, int first, int count) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float scale = 1.0f / over_row<F>(sum[h], [](float a, float b) { return a + b; });
      const int row = warp() * 16 + (lane() >> 2) + h * 8;
#pragma unroll
      for (int n = 0; n < 8; ++n)
        *reinterpret_cast<uint32_t*>(tile + chunk_at<F>(row, n) + (lane() & 3) * 4) =
            pack_bf16(o[n][2 * h] * scale, o[n][2 * h + 1] * scale);
    }
    if (F != Fault::missing_warp_sync) __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = warp() * 16 + (lane() >> 3) + i * 4, chunk = lane() & 7;
      const uint4 x = *reinterpret_cast<const uint4*>(tile + chunk_at<F>(row, chunk));
      if (first + row < count)
        *reinterpret_cast<uint4*>(out + static_cast<size_t>(first + row) * kDim + chunk * 8) = x;
    }
  }
};

template <Fault F>
__device__ void attention(const AttentionParameters& p) {
  extern __shared__ __align__(128) unsigned char shared[];
  const int block = blockIdx.x;
  unsigned char* tile_q = shared;
  const auto tile_k = [&](int stage) { return shared + kTileBytes * (1 + 2 * stage); };
  const auto tile_v = [&](int stage) { return shared + kTileBytes * (2 + 2 * stage); };
  load_tile<F>(tile_q, p.q, block * kTile, p.length);
  load_tile<F>(tile_k(0), p.k, 0, p.length);
  load_tile<F>(tile_v(0), p.v, 0, p.length);
  cp_async_commit();
  Rows<F> rows;
  for (int j = 0; j <= block; ++j) {
    const int stage = j & 1;
    if (j < block) {
      load_tile<F>(tile_k(stage ^ 1), p.k, (j + 1) * kTile, p.length);
      load_tile<F>(tile_v(stage ^ 1), p.v, (j + 1) * kTile, p.length);
      cp_async_commit();
      if (F != Fault::missing_wait) cp_async_wait<1>();
    } else {
      cp_async_wait<0>();
    }
    if (F != Fault::missing_barrier) __syncthreads();
    if (j == 0) rows.load(tile_q);
    float s[8][4] = {};  // (8-key tiles, elements of a lane)
    rows.multiply(s, tile_k(stage));
    rows.mask(s, j == block);
    rows.weigh(s, p.scale_log2);
    rows.add(s, tile_v(stage));
    if (F != Fault::missing_last_barrier) __syncthreads();
  }
  rows.store(tile_q, p.o, block * kTile, p.length);
}

// Sums of columns of a matrix of `rows` rows of 64, each block 32 rows.
template <Fault F>
__device__ void column_sums(const SumParameters& p) {
  __shared__ float part[4][64];
  const int column = threadIdx.x & 63, half = threadIdx.x >> 6;
  for (int r = 0; r < 2; ++r) {
    float x = 0;
    for (int i = 0; i < 8; ++i) x += p.x[(blockIdx.x * 32 + (half * 2 + r) * 8 + i) * 64 + column];
    part[half * 2 + r][column] = x;
  }
  if (F != Fault::missing_barrier) __syncthreads();
  if (threadIdx.x >= 64) return;
  const float total = part[0][column] + part[1][column] + part[2][column] + part[3][column];
  if (F == Fault::not_atomic) {
    p.sums[column] += total;
  } else {
    atomicAdd(p.sums + column, total);
  }
}

extern "C" __global__ void __launch_bounds__(128)
    attention_none(const __grid_constant__ AttentionParameters p) {
  attention<Fault::none>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    attention_no_swizzle(const __grid_constant__ AttentionParameters p) {
  attention<Fault::no_swizzle>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    attention_out_of_bounds(const __grid_constant__ AttentionParameters p) {
  attention<Fault::out_of_bounds>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    attention_missing_wait(const __grid_constant__ AttentionParameters p) {
  attention<Fault::missing_wait>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    attention_missing_barrier(const __grid_constant__ AttentionParameters p) {
  attention<Fault::missing_barrier>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    attention_missing_last_barrier(const __grid_constant__ AttentionParameters p) {
  attention<Fault::missing_last_barrier>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    attention_missing_warp_sync(const __grid_constant__ AttentionParameters p) {
  attention<Fault::missing_warp_sync>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    attention_missing_shuffle(const __grid_constant__ AttentionParameters p) {
  attention<Fault::missing_shuffle>(p);
}

extern "C" __global__ void sums_none(const __grid_constant__ SumParameters p) { column_sums<Fault::none>(p); }
extern "C" __global__ void sums_not_atomic(const __grid_constant__ SumParameters p) {
  column_sums<Fault::not_atomic>(p);
}
extern "C" __global__ void sums_missing_barrier(const __grid_constant__ SumParameters p) {
  column_sums<Fault::missing_barrier>(p);
}

}  // namespace longreach::ptx
