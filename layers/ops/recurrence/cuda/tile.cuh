// Tiles of 64 x 64 elements in shared memory, and how they become fragments of tensor products.
//
// 16-bit tiles have rows of 128 bytes whose 16-byte pieces are swizzled by XOR with the row, for ldmatrix;
// fp32 tiles have rows of 68 floats. The order of the inner index of a product is free as long as both sides
// agree. Products of 16-bit tiles with fp32 data (states, masked scores) run in TF32, in which a 16-bit value
// is exact; their inner index goes in the order of a 16-bit fragment: lane t of a quad holds 2t and 2t + 1
// (here "pairs") where TF32 fragments say t and t + 4 ("apart").
#pragma once
#include "layers/ops/cuda/element.cuh"
#include "layers/ops/cuda/split_sums.cuh"
#include "layers/ops/recurrence/cuda/params.h"

namespace longreach::recurrence_cuda {

using cuda::Element;
using cuda::kPerVector;

template <class T>
inline constexpr bool kHalf = sizeof(T) == 2;
template <class T>
inline constexpr int kTerms = kHalf<T> ? 1 : 3;  // fp32: a b = low high + high low + high high
template <class T, int kChains = 2>
using StepSums = std::conditional_t<kHalf<T>, cuda::PlainSums, cuda::SplitSums<kChains>>;
template <class T>
inline constexpr int kRowElements = tile_row_elements(sizeof(T));
template <class T>
inline constexpr int kTileBytes = tile_bytes(sizeof(T));

__device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) & 31; }
__device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) >> 5; }
__device__ __forceinline__ int quad() { return lane() >> 2; }      // row of a fragment
__device__ __forceinline__ int quad_lane() { return lane() & 3; }  // column (pair) of a fragment

// Piece: 16 bytes.
template <class T>
__device__ __forceinline__ T* piece_at(T* tile, int row, int piece) {
  if constexpr (kHalf<T>) return tile + row * 64 + ((piece ^ (row & 7)) << 3);
  return tile + row * kRowElements<T> + piece * 4;
}

template <class T>
__device__ __forceinline__ const T* token_row(const Operand& x, const Chunk& chunk, int head, int token) {
  return static_cast<const T*>(x.data) + chunk.row * x.row + (chunk.first + token) * x.token +
         (head / x.share) * x.head;
}

// Columns [first, first + 64) of the tokens of a chunk; zeros beyond `width` and beyond the chunk's tokens.
template <class T>
__device__ __forceinline__ void load_tile(T* tile, const Operand& x, const Chunk& chunk, int head, int first,
                                          int width) {
  constexpr int kPieces = kChunk / kPerVector<T>;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kChunk * kPieces; i += kThreads) {
    const int row = i / kPieces, piece = i % kPieces;
    const int count = row < chunk.tokens ? width - first - piece * kPerVector<T> : 0;
    const T* from = token_row<T>(x, chunk, head, row < chunk.tokens ? row : 0) +
                    (count > 0 ? first + piece * kPerVector<T> : 0);
    T* to = piece_at(tile, row, piece);
    if (x.vectors && (count >= kPerVector<T> || count <= 0)) {
      ptx::cp_async_16(to, from, count > 0);
    } else {
      *reinterpret_cast<uint4*>(to) = cuda::load_vector(from, count, false);
    }
  }
}

// Rows [row, row + 64), columns [column, column + 64) of a [rows, columns] state; zeros outside. Rows of
// `stride`.
__device__ __forceinline__ void load_state(float* tile, int stride, const float* state, int row, int column,
                                           int rows, int columns) {
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kChunk * 16; i += kThreads) {
    const int r = i / 16, c = i % 16 * 4;
    const bool take = row + r < rows && column + c < columns;
    ptx::cp_async_16(tile + r * stride + c,
                     take ? state + static_cast<int64_t>(row + r) * columns + column + c : state, take);
  }
}

__device__ __forceinline__ void load_table(float* to, const float* tables, int64_t index) {
  constexpr int kPieces = kTableRows * kChunk / 4;
  const int i = static_cast<int>(threadIdx.x);
  if (i < kPieces) ptx::cp_async_16(to + 4 * i, tables + index * (kTableRows * kChunk) + 4 * i, true);
}

template <int kCount>
__device__ __forceinline__ void set_parts(uint32_t& high, uint32_t& low, float x) {
  if constexpr (kCount == 1) {
    high = ptx::round_tf32(x);
  } else {
    high = cuda::high_part(__float_as_uint(x));
    low = cuda::low_part(__float_as_uint(x), high);
  }
}

// 16 rows x 16 inner elements, as two TF32 fragments [half][(g, lo), (g + 8, lo), (g, hi), (g + 8, hi)].
template <int kCount>
struct Left {
  uint32_t high[2][4];
  uint32_t low[kCount == 3 ? 2 : 1][4];
  __device__ __forceinline__ void set(int half, int i, float x) {
    set_parts<kCount>(high[half][i], low[kCount == 3 ? half : 0][i], x);
  }
};

// 16 inner elements x 8 columns: [half][lo, hi].
template <int kCount>
struct Right {
  uint32_t high[2][2];
  uint32_t low[kCount == 3 ? 2 : 1][2];
  __device__ __forceinline__ void set(int half, int i, float x) {
    set_parts<kCount>(high[half][i], low[kCount == 3 ? half : 0][i], x);
  }
};

// d += left right, small terms first.
template <int kCount, class Sums>
__device__ __forceinline__ void add_product(Sums& sums, float (&d)[4], const Left<kCount>& left,
                                            const Right<kCount>& right) {
  sums.add(d, [&](float(&sum)[4]) {
    if constexpr (kCount == 3) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        ptx::mma_tf32(sum, left.low[half], right.high[half][0], right.high[half][1]);
        ptx::mma_tf32(sum, left.high[half], right.low[half][0], right.low[half][1]);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half)
      ptx::mma_tf32(sum, left.high[half], right.high[half][0], right.high[half][1]);
  });
}

// Rows [row, row + 16), inner elements [k, k + 16) of a 16-bit tile as one 16-bit fragment.
template <class T>
__device__ __forceinline__ void row_fragment(uint32_t (&a)[4], T* tile, int row, int k) {
  ptx::ldmatrix_x4(a, piece_at(tile, row + (lane() & 15), k / 8 + (lane() >> 4)));
}

// The same values in TF32: exact, pairs.
template <class T>
__device__ __forceinline__ void widen(Left<1>& out, const uint32_t (&a)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    out.high[i / 2][i % 2] = __float_as_uint(Element<T>::low(a[i]));
    out.high[i / 2][2 + i % 2] = __float_as_uint(Element<T>::high(a[i]));
  }
}

// Rows of an fp32 tile, apart.
__device__ __forceinline__ void row_fragment(Left<3>& out, const float* tile, int row, int k) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float* from =
        tile + (row + quad() + i % 2 * 8) * kRowElements<float> + k + i / 4 * 8 + i % 4 / 2 * 4;
    out.set(i / 4, i % 4, from[quad_lane()]);
  }
}

// Right side whose columns are rows of the tile: element (k, n) = tile[n][k]; apart.
__device__ __forceinline__ void right_from_rows(Right<3>& out, const float* tile, int n, int k) {
#pragma unroll
  for (int i = 0; i < 4; ++i)
    out.set(i / 2, i % 2, tile[(n + quad()) * kRowElements<float> + k + i / 2 * 8 + i % 2 * 4 + quad_lane()]);
}

// scores (+)= x1 x2^T over 16 inner elements, for 16 columns [n, n + 16).
template <class T, class L>
__device__ __forceinline__ void add_scores(StepSums<T>& sums, float (&s)[2][4], const L& x1, T* x2, int n,
                                           int k) {
  if constexpr (kHalf<T>) {
    uint32_t b[4];
    ptx::ldmatrix_x4(b, piece_at(x2, n + (lane() & 7) + (lane() >> 4) * 8, k / 8 + ((lane() >> 3) & 1)));
    Element<T>::mma(s[0], x1, b[0], b[1]);
    Element<T>::mma(s[1], x1, b[2], b[3]);
  } else {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      Right<3> right;
      right_from_rows(right, x2, n + 8 * j, k);
      add_product(sums, s[j], x1, right);
    }
  }
}

// Tokens [k, k + 16) as inner elements, columns [n, n + 16) of a tile of tokens: two right sides, pairs.
template <class T>
__device__ __forceinline__ void right_from_tokens(Right<kTerms<T>> (&out)[2], T* tile, int k, int n) {
  if constexpr (kHalf<T>) {
    uint32_t b[4];
    ptx::ldmatrix_x4_transposed(b, piece_at(tile, k + (lane() & 15), n / 8 + (lane() >> 4)));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      out[i / 2].high[i % 2][0] = __float_as_uint(Element<T>::low(b[i]));
      out[i / 2].high[i % 2][1] = __float_as_uint(Element<T>::high(b[i]));
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int token = k + i % 4 / 2 * 8 + 2 * quad_lane() + i % 2;
      out[i / 4].set(i % 4 / 2, i % 2, tile[token * kRowElements<T> + n + i / 4 * 8 + quad()]);
    }
  }
}

// Rows of a state tile: fp32 fragments come without bank conflicts at one of two strides.
template <class T, bool kTransposed>
inline constexpr int kStateStride = kHalf<T> == kTransposed ? 72 : 68;

// Inner elements [k, k + 16), columns [n, n + 8) of a state, or of its transpose; in the order of x1's
// fragments.
template <class T, bool kTransposed>
__device__ __forceinline__ void right_from_state(Right<kTerms<T>>& out, const float* state, int k, int n) {
  constexpr int kStride = kStateStride<T, kTransposed>;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int first = k + 8 * half + (kHalf<T> ? 2 * quad_lane() : quad_lane());
    constexpr int kNext = kHalf<T> ? 1 : 4;
    if constexpr (kTransposed && kHalf<T>) {
      const float2 both = *reinterpret_cast<const float2*>(state + (n + quad()) * kStride + first);
      out.set(half, 0, both.x), out.set(half, 1, both.y);
    } else if constexpr (kTransposed) {
      out.set(half, 0, state[(n + quad()) * kStride + first]);
      out.set(half, 1, state[(n + quad()) * kStride + first + kNext]);
    } else {
      out.set(half, 0, state[first * kStride + n + quad()]);
      out.set(half, 1, state[(first + kNext) * kStride + n + quad()]);
    }
  }
}

}  // namespace longreach::recurrence_cuda
