// What kernels that work row by row share: a block walks a row in quads, and sums over the block in one fixed
// order.
#pragma once
#include "layers/ops/cuda/element.cuh"
#include "layers/ops/rows/cuda/params.h"

namespace longreach::cuda {

template <class T>
__device__ __forceinline__ T* row_of(const Rows& x, int64_t row) {
  return static_cast<T*>(x.data) + row * x.row;
}

// body(first column) for every quad of a row.
template <class F>
__device__ __forceinline__ void for_quads(int columns, const F& body) {
#pragma unroll 2
  for (int column = 4 * static_cast<int>(threadIdx.x); column < columns; column += 4 * kRowThreads)
    body(column);
}

__device__ __forceinline__ float4 operator*(const float4& a, const float4& b) {
  return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}
__device__ __forceinline__ float4 operator*(float a, const float4& b) {
  return make_float4(a * b.x, a * b.y, a * b.z, a * b.w);
}
__device__ __forceinline__ float4 operator-(const float4& a, const float4& b) {
  return make_float4(a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w);
}
__device__ __forceinline__ float sum(const float4& x) { return (x.x + x.y) + (x.z + x.w); }

// Combines one value of every thread; all threads get the result. `scratch`: one value a warp, free again
// after the block's next barrier.
template <class T, class F>
__device__ __forceinline__ T reduce_block(T x, T* scratch, const F& combine) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x = combine(x, __shfl_xor_sync(0xffffffffu, x, step));
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  x = scratch[0];
#pragma unroll
  for (int i = 1; i < kRowThreads / 32; ++i) x = combine(x, scratch[i]);
  __syncthreads();
  return x;
}

template <class T>
__device__ __forceinline__ T sum_block(T x, T* scratch) {
  return reduce_block(x, scratch, [](T a, T b) { return a + b; });
}

}  // namespace longreach::cuda
