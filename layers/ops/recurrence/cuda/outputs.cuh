// What every chunk gives out, from its tokens and one state: one kernel for o, dq, dk and dv.
//
//   y = (intra_scale X1 X2^T .* M) X3 + state_scale diag(factor) X1 State
//
//   role            X1  X2  X3  State  M, factor                     summed over
//   kOutput    o    Q   K   V   S      rows see columns up to them, before
//   kGradValue dv   K   Q   dO  G      rows see columns from them, after  heads that share v
//   kGradQuery dq   dO  V   K   S^T    as kOutput
//   kGradKey   dk   V   dO  Q   G^T    as kGradValue                      heads that share k
//
// S: state at the start of the chunk, G: gradient of the state at its end. before[r]: decay of tokens 0..r,
// after[j]: of tokens j+1..63.
//
// Work split: a block makes 64 tokens x 64 columns of y, each of 4 warps 16 rows. The inner index runs in
// slices of 64 through shared memory (two buffers for 16-bit types); scores and the state part accumulate
// side by side. Masked scores go from accumulators straight into the next product. Heads that share a head of
// y are summed one after another in the same block: no atomics, one order. Scores are made again in every
// column tile.
// Numerics: fp32 sums; scores of 16-bit types exact up to fp32 sums, all else TF32 (states and masked scores
// rounded to 11 bits, which overflow no earlier than fp32); fp32 as TF32x3. Exponents <= 0 alone. Traffic of
// a block, D = Dk = Dv = 64, 16 bits: 24 KiB of tokens and 16 KiB of state in, 8 KiB out.
#pragma once
#include "layers/ops/recurrence/cuda/tile.cuh"

namespace longreach::recurrence_cuda {

enum class Role { kOutput, kGradValue, kGradQuery, kGradKey };

template <Role kRole>
inline constexpr bool kReverse = kRole == Role::kGradValue || kRole == Role::kGradKey;
template <Role kRole>
inline constexpr bool kTransposed = kRole == Role::kGradQuery || kRole == Role::kGradKey;
template <class T>
inline constexpr int kBuffers = slice_buffers(sizeof(T));
template <class T>
inline constexpr int kSliceBytes = slice_bytes(sizeof(T));

// Shared memory: table, x3, buffers of (x1, x2, state); when the slices are done, x4 and weights of the first
// buffer.
template <class T>
struct OutputMemory {
  unsigned char* memory;

  __device__ __forceinline__ float* table() const { return reinterpret_cast<float*>(memory); }
  __device__ __forceinline__ T* x3() const { return reinterpret_cast<T*>(memory + kTableBytes); }
  __device__ __forceinline__ T* x1(int buffer) const {
    return reinterpret_cast<T*>(memory + kTableBytes + kTileBytes<T> + buffer * kSliceBytes<T>);
  }
  __device__ __forceinline__ T* x2(int buffer) const { return x1(buffer) + kTileBytes<T> / sizeof(T); }
  __device__ __forceinline__ float* state(int buffer) const {
    return reinterpret_cast<float*>(x1(buffer) + 2 * kTileBytes<T> / sizeof(T));
  }
  __device__ __forceinline__ T* x4() const { return x1(0); }
  __device__ __forceinline__ float* weights() const { return state(0); }
};

template <Role kRole>
__device__ __forceinline__ bool strip_pair_seen(
    int pair) {  // columns [16 pair, 16 pair + 16) by rows of this warp
  return kReverse<kRole> ? pair >= warp() : pair <= warp();
}

template <class T, Role kRole>
__device__ __forceinline__ void load_slice(const OutputMemory<T>& memory, int buffer, const OutputParams& p,
                                           const Chunk& chunk, const float* state, int head, int tile,
                                           int slice) {
  const int inner = slice * kChunk, outer = tile * kChunk;
  load_tile(memory.x1(buffer), p.x1, chunk, head, inner, p.inner);
  load_tile(memory.x2(buffer), p.x2, chunk, head, inner, p.inner);
  load_state(memory.state(buffer), kStateStride<T, kTransposed<kRole>>, state,
             kTransposed<kRole> ? outer : inner, kTransposed<kRole> ? inner : outer, p.rows, p.columns);
}

// One slice: scores += x1 x2^T, part += x1 state.
template <class T, Role kRole>
__device__ __forceinline__ void add_slice(float (&scores)[4][2][4], float (&part)[8][4],
                                          const OutputMemory<T>& memory, int buffer, int remaining) {
  const int row = warp() * 16;
  StepSums<T> sums;
#pragma unroll
  for (int k = 0; k < kChunk; k += 16) {
    if (k >= remaining) break;
    Left<kTerms<T>> left;
    if constexpr (kHalf<T>) {
      uint32_t a[4];
      row_fragment(a, memory.x1(buffer), row, k);
#pragma unroll
      for (int pair = 0; pair < 4; ++pair)
        if (strip_pair_seen<kRole>(pair)) add_scores(sums, scores[pair], a, memory.x2(buffer), 16 * pair, k);
      widen<T>(left, a);
    } else {
      row_fragment(left, memory.x1(buffer), row, k);
#pragma unroll
      for (int pair = 0; pair < 4; ++pair)
        if (strip_pair_seen<kRole>(pair))
          add_scores(sums, scores[pair], left, memory.x2(buffer), 16 * pair, k);
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      Right<kTerms<T>> right;
      right_from_state<T, kTransposed<kRole>>(right, memory.state(buffer), k, 8 * j);
      add_product(sums, part[j], left, right);
    }
  }
}

// part = scale diag(factor) part.
template <Role kRole>
__device__ __forceinline__ void scale_rows(float (&part)[8][4], const float* table, float scale) {
  const float* factors = table + (kReverse<kRole> ? kAfter : kBefore) * kChunk + warp() * 16 + quad();
  const float upper = factors[0] * scale, lower = factors[8] * scale;
#pragma unroll
  for (int j = 0; j < 8; ++j)
    part[j][0] *= upper, part[j][1] *= upper, part[j][2] *= lower, part[j][3] *= lower;
}

// row_dots[r] = part[r] . x4[r]. 16-bit pairs come from the tile in shared memory, fp32 pairs fill sectors of
// global memory.
template <class T>
__device__ __forceinline__ void store_row_dots(const float (&part)[8][4], T* tile_x4, const OutputParams& p,
                                               const Chunk& chunk, int head, int first, float* row_dots) {
  const int row = warp() * 16 + quad();
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int r = row + 8 * i;
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      float low, high;
      if constexpr (kHalf<T>) {
        const uint32_t both = *reinterpret_cast<const uint32_t*>(piece_at(tile_x4, r, j) + 2 * quad_lane());
        low = Element<T>::low(both), high = Element<T>::high(both);
      } else {
        const int column = first + 8 * j + 2 * quad_lane(), count = r < chunk.tokens ? p.outer - column : 0;
        const T* from = token_row<T>(p.x4, chunk, head, r) + column;
        const bool both = p.x4.vectors && count >= 2;
        const float2 x = both ? *reinterpret_cast<const float2*>(from) : make_float2(0, 0);
        low = both ? x.x : count >= 1 ? from[0] : 0.0f, high = both ? x.y : count >= 2 ? from[1] : 0.0f;
      }
      sum += part[j][2 * i] * low + part[j][2 * i + 1] * high;
    }
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    if (quad_lane() == 0) row_dots[r] = sum;
  }
}

// scores = scale scores .* M
template <Role kRole>
__device__ __forceinline__ void mask_scores(float (&scores)[4][2][4], const float* table, float scale) {
  const float *high = table + kHigh * kChunk, *low = table + kLow * kChunk;
  const int* reset = reinterpret_cast<const int*>(table) + kReset * kChunk;
  const int first = warp() * 16 + quad();
#pragma unroll
  for (int pair = 0; pair < 4; ++pair) {
    if (!strip_pair_seen<kRole>(pair)) continue;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int row = first + i % 4 / 2 * 8, column = 16 * pair + i / 4 * 8 + 2 * quad_lane() + i % 2;
      const int later = kReverse<kRole> ? column : row, earlier = kReverse<kRole> ? row : column;
      const bool seen = earlier <= later && earlier >= reset[later];
      const float exponent = seen ? (high[later] - high[earlier]) + (low[later] - low[earlier]) : 0.0f;
      float& score = scores[pair][i / 4][i % 4];
      score = seen ? score * (scale * ptx::exp2_approx(exponent)) : 0.0f;
    }
  }
}

// total += scores x3, tokens as inner elements.
template <class T, Role kRole>
__device__ __forceinline__ void add_tokens(float (&total)[8][4], const float (&scores)[4][2][4], T* x3) {
  StepSums<T> sums;
#pragma unroll
  for (int pair = 0; pair < 4; ++pair) {
    if (!strip_pair_seen<kRole>(pair)) continue;
    Left<kTerms<T>> left;
#pragma unroll
    for (int i = 0; i < 8; ++i) left.set(i / 4, i % 4, scores[pair][i / 4][i % 2 * 2 + i % 4 / 2]);
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
      Right<kTerms<T>> right[2];
      right_from_tokens<T>(right, x3, 16 * pair, 8 * j);
      add_product(sums, total[j], left, right[0]);
      add_product(sums, total[j + 1], left, right[1]);
    }
  }
}

// crossings[t] = sum over j < t <= r of (x4 x3^T .* scores)[r, j]: what this column tile gives to the
// gradient of the decay of token t. Sums alone, nothing is subtracted. weights: 64 rows of kWeightStride
// floats of shared memory.
inline constexpr int kWeightStride = 72;
template <class T>
__device__ __forceinline__ void store_weights(const float (&scores)[4][2][4], T* x4, T* x3, float* weights) {
  const int row = warp() * 16;
  StepSums<T> sums;
#pragma unroll
  for (int pair = 0; pair < 4; ++pair) {
    float products[2][4] = {};
    if (strip_pair_seen<Role::kGradQuery>(pair)) {
#pragma unroll
      for (int k = 0; k < kChunk; k += 16) {
        if constexpr (kHalf<T>) {
          uint32_t a[4];
          row_fragment(a, x4, row, k);
          add_scores(sums, products, a, x3, 16 * pair, k);
        } else {
          Left<3> left;
          row_fragment(left, x4, row, k);
          add_scores(sums, products, left, x3, 16 * pair, k);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* p = products[i / 2] + i % 2 * 2;
      const float* s = scores[pair][i / 2] + i % 2 * 2;
      *reinterpret_cast<float2*>(weights + (row + quad() + i % 2 * 8) * kWeightStride + 16 * pair +
                                 i / 2 * 8 + 2 * quad_lane()) = make_float2(p[0] * s[0], p[1] * s[1]);
    }
  }
}

__device__ __forceinline__ void store_crossings(float* weights, float* crossings) {
  const int i = static_cast<int>(threadIdx.x), column = i % kChunk, end = i / kChunk * 32 + 32;
  float sum =
      0;  // each half of the rows from its end: weights[r, j] becomes the sum of rows r and later of its half
#pragma unroll 8
  for (int row = end - 1; row >= end - 32; --row) {
    sum += weights[row * kWeightStride + column];
    weights[row * kWeightStride + column] = sum;
  }
  __syncthreads();
  if (i >= kChunk) return;
  float upper = 0, lower = 0;
#pragma unroll 8
  for (int step = 0; step < kChunk; ++step) {  // every lane begins at another column: no bank conflicts
    const int j = (i + step) % kChunk;
    upper += j < i ? weights[i * kWeightStride + j] : 0.0f;
  }
  if (i < 32)
    for (int j = 0; j < i; ++j) lower += weights[32 * kWeightStride + j];
  crossings[i] = upper + lower;
}

// What the gradient of the decays takes from this tile; x4 comes into the place of slices that are done.
template <class T, Role kRole>
__device__ __forceinline__ void store_decay_parts(const float (&part)[8][4], const float (&scores)[4][2][4],
                                                  const OutputMemory<T>& memory, const OutputParams& p,
                                                  const Chunk& chunk, int head, int tile, int64_t index) {
  constexpr bool kWeights = kRole == Role::kGradQuery;
  if constexpr (kHalf<T> || kWeights) {
    __syncthreads();
    load_tile(memory.x4(), p.x4, chunk, head, tile * kChunk, p.outer);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    __syncthreads();
  }
  store_row_dots(part, memory.x4(), p, chunk, head, tile * kChunk, p.row_dots + index * kChunk);
  if constexpr (kWeights) {
    store_weights(scores, memory.x4(), memory.x3(), memory.weights());
    __syncthreads();
    store_crossings(memory.weights(), p.crossings + index * kChunk);
  }
}

// fp32 fragments fill whole sectors; 16-bit ones go through shared memory (`stage`, a tile) to do so.
template <class T>
__device__ __forceinline__ void store_output(const float (&total)[8][4], const OutputParams& p,
                                             const Chunk& chunk, int head, int tile, T* stage) {
  const int row = warp() * 16, columns = p.outer - tile * kChunk;
  if constexpr (kHalf<T>) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i)
        *reinterpret_cast<uint32_t*>(piece_at(stage, row + quad() + 8 * i, j) + 2 * quad_lane()) =
            Element<T>::pack(total[j][2 * i], total[j][2 * i + 1]);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = row + 4 * i + lane() / 8, piece = lane() % 8;
      if (r >= chunk.tokens) continue;
      T* to = const_cast<T*>(token_row<T>(p.y, chunk, head, r)) + tile * kChunk + 8 * piece;
      cuda::store_vector(to, *reinterpret_cast<const uint4*>(piece_at(stage, r, piece)), columns - 8 * piece,
                         p.y.vectors);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int r = row + quad() + 8 * i;
      if (r >= chunk.tokens) continue;
      T* to = const_cast<T*>(token_row<T>(p.y, chunk, head, r)) + tile * kChunk;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const int column = 8 * j + 2 * quad_lane();
        if (p.y.vectors && column + 2 <= columns) {
          cuda::store_8(to + column, __float_as_uint(total[j][2 * i]), __float_as_uint(total[j][2 * i + 1]));
        } else {
          if (column < columns) to[column] = total[j][2 * i];
          if (column + 1 < columns) to[column + 1] = total[j][2 * i + 1];
        }
      }
    }
  }
}

// Grid: chunks x column tiles, heads of y.
template <class T, Role kRole>
__device__ __forceinline__ void outputs(const OutputParams& p) {
  extern __shared__ __align__(128) unsigned char shared[];
  const OutputMemory<T> memory{shared};
  const int64_t chunk_index = blockIdx.x / p.tiles;
  const int tile = static_cast<int>(blockIdx.x % p.tiles), slices = (p.inner + kChunk - 1) / kChunk;
  const Chunk chunk = p.chunks[chunk_index];
  float total[8][4] = {};  // (8-column tiles, elements of a lane)
  for (int h = 0; h < p.group; ++h) {
    const int head = static_cast<int>(blockIdx.y) * p.group + h;
    const int64_t index = chunk_index * p.heads + head;
    const float* state = p.states + index * p.rows * p.columns;
    if (h > 0) __syncthreads();  // everyone is done with the head before
    load_table(memory.table(), p.tables, index);
    load_tile(memory.x3(), p.x3, chunk, head, tile * kChunk, p.outer);
    load_slice<T, kRole>(memory, 0, p, chunk, state, head, tile, 0);
    ptx::cp_async_commit();
    // (16-token steps, 8-token tiles, elements of a lane); (8-column tiles, elements of a lane)
    float scores[4][2][4] = {}, part[8][4] = {};
    for (int slice = 0; slice < slices; ++slice) {
      const bool more = slice + 1 < slices;
      if (kBuffers<T> == 2 && more)
        load_slice<T, kRole>(memory, (slice + 1) & 1, p, chunk, state, head, tile, slice + 1);
      ptx::cp_async_commit();
      ptx::cp_async_wait<1>();
      __syncthreads();
      add_slice<T, kRole>(scores, part, memory, kBuffers<T> == 2 ? slice & 1 : 0, p.inner - slice * kChunk);
      if (more) __syncthreads();
      if (kBuffers<T> == 1 && more) load_slice<T, kRole>(memory, 0, p, chunk, state, head, tile, slice + 1);
      if (kBuffers<T> == 1) ptx::cp_async_commit();
    }
    scale_rows<kRole>(part, memory.table(), p.state_scale);
    mask_scores<kRole>(scores, memory.table(), p.intra_scale);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) total[j][i] += part[j][i];
    }
    add_tokens<T, kRole>(total, scores, memory.x3());
    if constexpr (kTransposed<kRole>) {
      if (p.row_dots)
        store_decay_parts<T, kRole>(part, scores, memory, p, chunk, head, tile, index * p.tiles + tile);
    }
  }
  __syncthreads();
  store_output(total, p, chunk, static_cast<int>(blockIdx.y), tile, memory.x1(0));
}

}  // namespace longreach::recurrence_cuda
