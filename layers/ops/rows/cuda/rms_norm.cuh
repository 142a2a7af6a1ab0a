// RMSNorm: y = x rstd weight, rstd = rsqrt(mean(x^2) + eps), and its gradient. With xhat = x rstd, g = dy
// weight:
//   dx = rstd (g - xhat mean(g xhat)),   dweight = sum over rows of dy xhat
// A block takes a row at a time. For dweight each block adds up its rows in shared memory, every thread its
// own columns, and a second kernel adds the blocks' sums in order: no atomics; the number of blocks follows
// from the shape alone. fp32 throughout. Traffic: x once from memory (the second reading of a row finds it in
// a cache), y once; backward the same of x, dy, dx.
#pragma once
#include "layers/ops/rows/cuda/rows.cuh"

namespace longreach::cuda {

__device__ __forceinline__ float4 weight_quad(const float* weight, int column, int columns) {
  if (weight == nullptr) return make_float4(1, 1, 1, 1);
  return load_quad(weight + column, columns - column, reinterpret_cast<uintptr_t>(weight) % 16 == 0);
}

template <class X, class Y>
__device__ __forceinline__ void rms_norm(const RmsNormParams& p) {
  __shared__ float scratch[kRowThreads / 32];
  const int64_t row = blockIdx.x;
  const X* x = row_of<X>(p.x, row);
  Y* y = row_of<Y>(p.y, row);
  float squares = 0;
  for_quads(p.columns, [&](int c) {
    const float4 v = load_quad(x + c, p.columns - c, p.x.quads);
    squares += sum(v * v);
  });
  const float rstd = rsqrtf(sum_block(squares, scratch) / static_cast<float>(p.columns) + p.eps);
  if (threadIdx.x == 0) p.rstd[row] = rstd;
  for_quads(p.columns, [&](int c) {
    const float4 v = load_quad(x + c, p.columns - c, p.x.quads);
    store_quad(y + c, rstd * v * weight_quad(p.weight, c, p.columns), p.columns - c, p.y.quads);
  });
}

// Grid: blocks that take the rows in turn. Shared memory: sums of dy xhat, element e of every quad `pitch`
// numbers apart, so that the lanes of a warp meet no bank conflict when they add quads or read columns.
template <class X, class Y>
__device__ __forceinline__ void rms_norm_grad(const RmsNormGradParams& p) {
  extern __shared__ float sums[];
  __shared__ float scratch[kRowThreads / 32];
  const bool wanted = p.partials != nullptr;
  if (wanted)
    for (int i = static_cast<int>(threadIdx.x); i < 4 * p.pitch; i += kRowThreads) sums[i] = 0;
  __syncthreads();
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    const X* x = row_of<X>(p.x, row);
    const Y* dy = row_of<Y>(p.dy, row);
    X* dx = row_of<X>(p.dx, row);
    const float rstd = p.rstd[row];
    float dot = 0;
    for_quads(p.columns, [&](int c) {
      const float4 product =
          rstd * load_quad(x + c, p.columns - c, p.x.quads) * load_quad(dy + c, p.columns - c, p.dy.quads);
      dot += sum(product * weight_quad(p.weight, c, p.columns));
      if (wanted) {
        float* to = sums + c / 4;
        to[0] += product.x, to[p.pitch] += product.y, to[2 * p.pitch] += product.z,
            to[3 * p.pitch] += product.w;
      }
    });
    const float mean = sum_block(dot, scratch) / static_cast<float>(p.columns);
    for_quads(p.columns, [&](int c) {
      const float4 xhat = rstd * load_quad(x + c, p.columns - c, p.x.quads);
      const float4 g = load_quad(dy + c, p.columns - c, p.dy.quads) * weight_quad(p.weight, c, p.columns);
      store_quad(dx + c, rstd * (g - mean * xhat), p.columns - c, p.dx.quads);
    });
  }
  if (!wanted) return;
  __syncthreads();
  for (int c = static_cast<int>(threadIdx.x); c < p.columns; c += kRowThreads)
    p.partials[static_cast<int64_t>(blockIdx.x) * p.columns + c] = sums[c % 4 * p.pitch + c / 4];
}

// Grid: tiles of 32 columns. 8 warps add every eighth part, then one warp their sums.
__device__ __forceinline__ void column_sums(const ColumnSumParams& p) {
  constexpr int kWarps = kRowThreads / 32;
  __shared__ float parts[kWarps][32];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int column = static_cast<int>(blockIdx.x) * 32 + lane;
  float total = 0;
  if (column < p.columns) {
#pragma unroll 4
    for (int part = warp; part < p.parts; part += kWarps)
      total += p.partials[static_cast<int64_t>(part) * p.columns + column];
  }
  parts[warp][lane] = total;
  __syncthreads();
  if (warp != 0 || column >= p.columns) return;
#pragma unroll
  for (int i = 1; i < kWarps; ++i) total += parts[i][lane];
  p.sums[column] = total;
}

}  // namespace longreach::cuda
