// States of all chunks: what each chunk adds to a state (tensor products), then a scan over the chunks of a
// sequence.
//
//   forward   sums[c] = diag(after) K^T V,          state[c + 1] = total[c] state[c] + sums[c]
//   backward  sums[c] = scale (diag(before) Q)^T dO, G[c - 1] = total[c] G[c] + sums[c]
//
// sums[c] are replaced by state[c], the state at the start of chunk c, or by G[c], the gradient of the state
// at its end; states are fp32 [rows, columns], widths padded to 16 with zeros. Work split: sums, a block a 64
// x 64 tile of one chunk; scan, a thread 4 numbers of a state over all chunks. Traffic: tokens once a tile,
// each state written, read and written once.
#pragma once
#include "layers/ops/recurrence/cuda/tile.cuh"

namespace longreach::recurrence_cuda {

// Tokens [k, k + 16) as inner elements, columns [m, m + 16) of a tile of tokens as rows of the product; each
// token times its factor.
template <class T>
__device__ __forceinline__ void left_from_tokens(Left<kTerms<T>>& out, T* tile, int k, int m,
                                                 const float* factors) {
  const float* factor = factors + k + 2 * quad_lane();
  if constexpr (kHalf<T>) {
    uint32_t a[4];
    ptx::ldmatrix_x4_transposed(
        a, piece_at(tile, k + (lane() & 7) + (lane() >> 4) * 8, m / 8 + ((lane() >> 3) & 1)));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      out.set(i / 2, i % 2, Element<T>::low(a[i]) * factor[i / 2 * 8]);
      out.set(i / 2, 2 + i % 2, Element<T>::high(a[i]) * factor[i / 2 * 8 + 1]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int token = i / 4 * 8 + i % 4 / 2;
      out.set(i / 4, i % 4,
              tile[(k + token + 2 * quad_lane()) * kRowElements<T> + m + quad() + i % 2 * 8] * factor[token]);
    }
  }
}

// A block's chunk and tile of a state.
struct SumPlace {
  int64_t chunk;
  int row, column;

  __device__ __forceinline__ explicit SumPlace(const SumParams& p) {
    unsigned block;  // worked out again where it is asked for again, so that no register holds it meanwhile
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(block));
    const int across = (p.columns + kChunk - 1) / kChunk, tiles = (p.rows + kChunk - 1) / kChunk * across;
    const int tile = static_cast<int>(block % tiles);
    chunk = block / tiles;
    row = tile / across * kChunk;
    column = tile % across * kChunk;
  }
  __device__ __forceinline__ int64_t index(const SumParams& p) const { return chunk * p.heads + blockIdx.y; }
};

// Grid: chunks x tiles of a state, heads. Each of 4 warps makes 16 rows of the tile.
template <class T>
__device__ __forceinline__ void chunk_sums(const SumParams& p) {
  extern __shared__ __align__(128) unsigned char shared[];
  float* factors = reinterpret_cast<float*>(shared);
  T* x = reinterpret_cast<T*>(shared + kChunk * sizeof(float));
  T* z = x + kTileBytes<T> / sizeof(T);
  const SumPlace from(p);
  const int head = static_cast<int>(blockIdx.y);
  const Chunk chunk = p.chunks[from.chunk];
  load_tile(x, p.x, chunk, head, from.row, p.x_width);
  load_tile(z, p.z, chunk, head, from.column, p.z_width);
  if (threadIdx.x < kChunk)
    factors[threadIdx.x] = p.tables[(from.index(p) * kTableRows + p.factor) * kChunk + threadIdx.x] * p.scale;
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  __syncthreads();
  float sums[8][4] = {};  // (8-column tiles, elements of a lane)
  StepSums<T, 1> steps;   // the warps of other blocks work meanwhile
#pragma unroll
  for (int k = 0; k < kChunk; k += 16) {
    Left<kTerms<T>> left;
    left_from_tokens(left, x, k, warp() * 16, factors);
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
      Right<kTerms<T>> right[2];
      right_from_tokens<T>(right, z, k, 8 * j);
      add_product(steps, sums[j], left, right[0]);
      add_product(steps, sums[j + 1], left, right[1]);
    }
  }
  const SumPlace to(p);
  float* out = p.sums + to.index(p) * p.rows * p.columns;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int r = to.row + warp() * 16 + quad() + 8 * i;
    if (r >= p.rows) continue;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int c = to.column + 8 * j + 2 * quad_lane();
      if (c < p.columns)
        *reinterpret_cast<float2*>(out + static_cast<int64_t>(r) * p.columns + c) =
            make_float2(sums[j][2 * i], sums[j][2 * i + 1]);
    }
  }
}

// 4 numbers of row r, columns c.. of a state of the caller, whose sizes are not padded.
__device__ __forceinline__ float4 read_state(const float* state, const ScanParams& p, int r, int c) {
  if (state == nullptr || r >= p.dk) return make_float4(0, 0, 0, 0);
  const uint4 x = cuda::load_vector(state + static_cast<int64_t>(r) * p.dv + c, p.dv - c, p.vectors);
  return make_float4(__uint_as_float(x.x), __uint_as_float(x.y), __uint_as_float(x.z), __uint_as_float(x.w));
}
__device__ __forceinline__ void write_state(float* state, const ScanParams& p, int r, int c,
                                            const float4& x) {
  if (state == nullptr || r >= p.dk) return;
  const uint4 bits =
      make_uint4(__float_as_uint(x.x), __float_as_uint(x.y), __float_as_uint(x.z), __float_as_uint(x.w));
  cuda::store_vector(state + static_cast<int64_t>(r) * p.dv + c, bits, p.dv - c, p.vectors);
}

// Grid: sequences x heads x parts of 512 numbers. Sums are read a few chunks ahead: they depend on nothing.
__device__ __forceinline__ void scan(const ScanParams& p) {
  constexpr int kAhead = 4;
  const int size = p.rows * p.columns, parts = (size + 4 * kThreads - 1) / (4 * kThreads);
  const int64_t task = blockIdx.x / parts;
  const int element = (static_cast<int>(blockIdx.x % parts) * kThreads + static_cast<int>(threadIdx.x)) * 4;
  if (element >= size) return;  // whole warps: sizes are multiples of 256
  const int head = static_cast<int>(task % p.heads), r = element / p.columns, c = element % p.columns;
  const ChunkRange range = p.ranges[task / p.heads];
  const int64_t outside = task * p.dk * p.dv;
  float4 s = read_state(p.start ? p.start + outside : nullptr, p, r, c);
  for (int64_t done = 0; done < range.count; done += kAhead) {
    float4 sums[kAhead], states[kAhead];
    float totals[kAhead];
    int64_t index[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (done + i >= range.count) continue;
      const int64_t chunk = p.reverse ? range.first + range.count - 1 - done - i : range.first + done + i;
      index[i] = chunk * p.heads + head;
      sums[i] = *reinterpret_cast<const float4*>(p.sums + index[i] * size + element);
      totals[i] = p.tables[(index[i] * kTableRows + kBefore) * kChunk + kChunk - 1];
      if (p.borders) states[i] = *reinterpret_cast<const float4*>(p.states + index[i] * size + element);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (done + i >= range.count) continue;
      *reinterpret_cast<float4*>(p.sums + index[i] * size + element) = s;
      const float4 u = sums[i];
      const float a = totals[i];
      if (p.borders) {
        const float4 x = states[i];
        float dot = a * ((x.x * s.x + x.y * s.y) + (x.z * s.z + x.w * s.w));
        for (int step = 16; step > 0; step /= 2) dot += __shfl_xor_sync(0xffffffffu, dot, step);
        if (lane() == 0) p.borders[index[i] * (size / 128) + element / 128] = dot;
      }
      s = make_float4(a * s.x + u.x, a * s.y + u.y, a * s.z + u.z, a * s.w + u.w);
    }
  }
  write_state(p.end ? p.end + outside : nullptr, p, r, c, s);
}

}  // namespace longreach::recurrence_cuda
