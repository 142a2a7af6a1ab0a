// Products of tiles on tensor cores, for bf16, fp16 and fp32. A warp owns 16-row tiles of accumulators
// acc[row tile][8-column tile][4], in the layout of mma.m16n8: lane 4 g + t has rows g and g + 8 (elements 0,
// 1 and 2, 3), columns 2 t and 2 t + 1.
//
// A step takes 32 bytes of both rows: 16 elements of 16 bits or 8 of 32 bits; ldmatrix, which moves 16-byte
// rows whatever they hold, then gives the right fragments for both. fp32 factors are split into two TF32
// numbers (split_sums.cuh): about 2^-21 of error where TF32 alone has 2^-11.
#pragma once
#include "layers/ops/cuda/split_sums.cuh"
#include "layers/ops/cuda/tile.cuh"

namespace longreach::cuda {

// 32-bit registers of one factor as the tensor cores take them.
template <int kRegisters>
struct Half2Fragment {
  uint32_t bits[kRegisters];
};
template <int kRegisters>
struct SplitFragment {
  uint32_t high[kRegisters], low[kRegisters];
};

template <int kRegisters>
__device__ __forceinline__ SplitFragment<kRegisters> split_fragment(const uint32_t (&bits)[kRegisters]) {
  SplitFragment<kRegisters> f;
#pragma unroll
  for (int i = 0; i < kRegisters; ++i) {
    f.high[i] = high_part(bits[i]);
    f.low[i] = low_part(bits[i], f.high[i]);
  }
  return f;
}

struct BFloat16 {
  static constexpr int kBytes = 2;
  template <int kRegisters>
  using Fragment = Half2Fragment<kRegisters>;
  using Sums = PlainSums;
  static __device__ __forceinline__ uint32_t pack(float low, float high) { return ptx::pack_bf16(low, high); }
  static __device__ __forceinline__ float to_float(uint32_t low_half) {
    return ptx::float_from_bf16(low_half);
  }
  static __device__ __forceinline__ void multiply(float (&d)[4], const Fragment<4>& a, const Fragment<2>& b) {
    ptx::mma_bf16(d, a.bits, b.bits[0], b.bits[1]);
  }
};

struct Float16 {
  static constexpr int kBytes = 2;
  template <int kRegisters>
  using Fragment = Half2Fragment<kRegisters>;
  using Sums = PlainSums;
  static __device__ __forceinline__ uint32_t pack(float low, float high) { return ptx::pack_fp16(low, high); }
  static __device__ __forceinline__ float to_float(uint32_t low_half) {
    return ptx::float_from_fp16(low_half);
  }
  static __device__ __forceinline__ void multiply(float (&d)[4], const Fragment<4>& a, const Fragment<2>& b) {
    ptx::mma_fp16(d, a.bits, b.bits[0], b.bits[1]);
  }
};

struct Float32 {
  static constexpr int kBytes = 4;
  template <int kRegisters>
  using Fragment = SplitFragment<kRegisters>;
  using Sums = SplitSums<2>;
  // To a sum of its own: small terms first.
  static __device__ __forceinline__ void multiply(float (&d)[4], const Fragment<4>& a, const Fragment<2>& b) {
    multiply_low(d, a, b);
    multiply_high(d, a, b);
  }
  static __device__ __forceinline__ void multiply_low(float (&d)[4], const Fragment<4>& a,
                                                      const Fragment<2>& b) {
    ptx::mma_tf32(d, a.low, b.high[0], b.high[1]);
    ptx::mma_tf32(d, a.high, b.low[0], b.low[1]);
  }
  static __device__ __forceinline__ void multiply_high(float (&d)[4], const Fragment<4>& a,
                                                       const Fragment<2>& b) {
    ptx::mma_tf32(d, a.high, b.high[0], b.high[1]);
  }
};

template <class Element, int kRegisters>
__device__ __forceinline__ typename Element::template Fragment<kRegisters> to_fragment(
    const uint32_t (&bits)[kRegisters]) {
  if constexpr (Element::kBytes == 4) {
    return split_fragment(bits);
  } else {
    Half2Fragment<kRegisters> f;
#pragma unroll
    for (int i = 0; i < kRegisters; ++i) f.bits[i] = bits[i];
    return f;
  }
}

__device__ __forceinline__ int lane_id() { return static_cast<int>(threadIdx.x) & 31; }

template <int kRowTiles, int kColumnTiles>
__device__ __forceinline__ void clear(float (&acc)[kRowTiles][kColumnTiles][4]) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) acc[m][n][e] = 0.0f;
}

// Rows are given by the address of the first one, which begins eight rows of a tile: its permutation is then
// that of row 0, and offsets do not depend on where a warp's rows lie.

// Registers of step `step` of 16 rows, as the left factor.
template <int kRowBytes>
__device__ __forceinline__ void load_left(uint32_t (&bits)[4], uint32_t rows, int step) {
  const int lane = lane_id();
  ptx::ldmatrix_x4(bits, rows + Tile<kRowBytes>::offset(lane & 15, step * 2 + (lane >> 4)));
}

// Left factors of a whole tile held in registers.
template <int kRowTiles, int kRowBytes>
struct HeldRows {
  uint32_t bits[kRowBytes / 32][kRowTiles][4];  // (steps of 32 bytes, 16-row tiles, 8 x 8 matrices)

  __device__ __forceinline__ void load(uint32_t rows) {
#pragma unroll
    for (int step = 0; step < kRowBytes / 32; ++step)
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m)
        load_left<kRowBytes>(bits[step][m], rows + m * 16 * kRowBytes, step);
  }
  __device__ __forceinline__ void get(uint32_t (&d)[4], int m, int step) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) d[i] = bits[step][m][i];
  }
};

// The same, read from shared memory at each use.
template <int kRowBytes>
struct SharedRows {
  uint32_t rows;

  __device__ __forceinline__ void get(uint32_t (&d)[4], int m, int step) const {
    load_left<kRowBytes>(d, rows + m * 16 * kRowBytes, step);
  }
};

// acc += left right^T: both factors as rows of kRowBytes; right: kColumnTiles * 8 rows.
template <class Element, int kRowBytes, int kRowTiles, int kColumnTiles, class Left>
__device__ __forceinline__ void multiply_rows(float (&acc)[kRowTiles][kColumnTiles][4], const Left& left,
                                              uint32_t right) {
  static_assert(kColumnTiles % 2 == 0);
  const int lane = lane_id(), row = (lane & 7) + ((lane >> 4) << 3), half = (lane >> 3) & 1;
  typename Element::Sums sums;
#pragma unroll
  for (int step = 0; step < kRowBytes / 32; ++step) {
    typename Element::template Fragment<4> a[kRowTiles];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      uint32_t bits[4];
      left.get(bits, m, step);
      a[m] = to_fragment<Element>(bits);
    }
#pragma unroll
    for (int n = 0; n < kColumnTiles; n += 2) {
      uint32_t bits[4];
      ptx::ldmatrix_x4(bits, right + Tile<kRowBytes>::offset(row + n * 8, step * 2 + half));
      const uint32_t first[2] = {bits[0], bits[1]}, second[2] = {bits[2], bits[3]};
      const auto b0 = to_fragment<Element>(first), b1 = to_fragment<Element>(second);
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        sums.add(acc[m][n], [&](float(&d)[4]) { Element::multiply(d, a[m], b0); });
        sums.add(acc[m][n + 1], [&](float(&d)[4]) { Element::multiply(d, a[m], b1); });
      }
    }
  }
}

// acc += weights right for 16-bit elements: weights are accumulators, rounded to Element; right has a row of
// kRowBytes for each of their columns.
template <class Element, int kRowBytes, int kRowTiles, int kInner, int kColumnTiles>
__device__ __forceinline__ void multiply_weights_16bit(float (&acc)[kRowTiles][kColumnTiles][4],
                                                       const float (&weights)[kRowTiles][kInner][4],
                                                       uint32_t right) {
  static_assert(kInner % 2 == 0 && kColumnTiles % 2 == 0);
  const int lane = lane_id(), row = lane & 15;
#pragma unroll
  for (int k = 0; k < kInner; k += 2) {
    typename Element::template Fragment<4> a[kRowTiles];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = &weights[m][k + (i >> 1)][(i & 1) * 2];
        a[m].bits[i] = Element::pack(pair[0], pair[1]);
      }
#pragma unroll
    for (int n = 0; n < kColumnTiles; n += 2) {
      uint32_t bits[4];
      ptx::ldmatrix_x4_transposed(bits, right + Tile<kRowBytes>::offset(row + k * 8, n + (lane >> 4)));
      const uint32_t first[2] = {bits[0], bits[1]}, second[2] = {bits[2], bits[3]};
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        Element::multiply(acc[m][n], a[m], to_fragment<Element>(first));
        Element::multiply(acc[m][n + 1], a[m], to_fragment<Element>(second));
      }
    }
  }
}

// The same for fp32, 16 inner indices a step. ldmatrix does not transpose 32-bit elements, so right is read
// element by element. Inner index 2 t of eight is given to position t and 2 t + 1 to position t + 4: then the
// accumulators are the left fragment as they are, and the rows that a warp reads together lie in different
// bank groups.
template <int kRowBytes, int kRowTiles, int kInner, int kColumnTiles>
__device__ __forceinline__ void multiply_weights_32bit(float (&acc)[kRowTiles][kColumnTiles][4],
                                                       const float (&weights)[kRowTiles][kInner][4],
                                                       uint32_t right) {
  using Right = Tile<kRowBytes>;
  static_assert(kInner % 2 == 0 && Right::kPermuted == 8);
  const int lane = lane_id(), g = lane >> 2, row = (lane & 3) * 2;
  uint32_t from[2];  // column tile n begins at chunk 2 n: its bits change those of chunk 0 by XOR
#pragma unroll
  for (int i = 0; i < 2; ++i) from[i] = right + Right::offset(row + i, g >> 2) + (g & 3) * 4;
  Float32::Sums sums;
#pragma unroll
  for (int k = 0; k < kInner; k += 2) {
    SplitFragment<4> a[kRowTiles][2];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float(&w)[4] = weights[m][k + j];
        const uint32_t bits[4] = {__float_as_uint(w[0]), __float_as_uint(w[2]), __float_as_uint(w[1]),
                                  __float_as_uint(w[3])};
        a[m][j] = split_fragment(bits);
      }
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
      SplitFragment<2> b[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        uint32_t bits[2];
#pragma unroll
        for (int i = 0; i < 2; ++i)
          bits[i] = ptx::load_shared_word((from[i] ^ n % 4 * 32) + (k + j) * 8 * kRowBytes + n / 4 * 128);
        b[j] = split_fragment(bits);
      }
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m)
        sums.add(acc[m][n], [&](float(&d)[4]) {
          for (int j = 0; j < 2; ++j) Float32::multiply_low(d, a[m][j], b[j]);
          for (int j = 0; j < 2; ++j) Float32::multiply_high(d, a[m][j], b[j]);
        });
    }
  }
}

template <class Element, int kRowBytes, int kRowTiles, int kInner, int kColumnTiles>
__device__ __forceinline__ void multiply_weights(float (&acc)[kRowTiles][kColumnTiles][4],
                                                 const float (&weights)[kRowTiles][kInner][4],
                                                 const char* right) {
  if constexpr (Element::kBytes == 4) {
    multiply_weights_32bit<kRowBytes>(acc, weights, ptx::shared_address(right));
  } else {
    multiply_weights_16bit<Element, kRowBytes>(acc, weights, ptx::shared_address(right));
  }
}

}  // namespace longreach::cuda
