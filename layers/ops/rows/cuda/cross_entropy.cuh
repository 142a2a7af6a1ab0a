// Cross-entropy of a chunk of logits: per row lse = log sum exp, nll = lse - logit of the label, and, in
// place of the logits, the gradient of nll + z lse^2: softmax (1 + 2 z lse) - onehot(label), times
// grad_scale.
// A block takes a row: one pass for the running maximum and sum, one for the gradient. Statistics are fp32
// whatever the type of the logits. Traffic: logits read twice (the second time from the second-level cache
// where it holds the rows at work), written once. Sums over rows run in one block in one order.
#pragma once
#include "layers/ops/rows/cuda/rows.cuh"

namespace longreach::cuda {

inline constexpr float kLogTwo = 0.69314718f, kLog2OfE = 1.44269504f;

struct SoftmaxSum {
  float top = -INFINITY, sum = 0;  // sum of exp(x - top)
};

// e^(x - top); 0 where both are -inf.
__device__ __forceinline__ float exponential(float x, float top) {
  return ptx::exp2_approx((x - (top == -INFINITY ? 0.0f : top)) * kLog2OfE);
}

__device__ __forceinline__ SoftmaxSum merge(const SoftmaxSum& a, const SoftmaxSum& b) {
  const float top = fmaxf(a.top, b.top);
  return {top, a.sum * exponential(a.top, top) + b.sum * exponential(b.top, top)};
}

__device__ __forceinline__ SoftmaxSum merge_block(SoftmaxSum x, SoftmaxSum* scratch) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2)
    x = merge(x, {__shfl_xor_sync(0xffffffffu, x.top, step), __shfl_xor_sync(0xffffffffu, x.sum, step)});
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  x = scratch[0];
#pragma unroll
  for (int i = 1; i < kRowThreads / 32; ++i) x = merge(x, scratch[i]);
  return x;
}

// body(first column) for quads at multiples of 4 elements of memory, wherever the row begins: rows of an odd
// vocabulary go as fast as any. The first quad may begin before column 0.
template <class T, class F>
__device__ __forceinline__ void for_memory_quads(const T* row, int columns, const F& body) {
  const int shift = static_cast<int>(reinterpret_cast<uintptr_t>(row) / sizeof(T) % 4);
#pragma unroll 2
  for (int column = 4 * static_cast<int>(threadIdx.x) - shift; column < columns; column += 4 * kRowThreads)
    body(column);
}

// `fill` outside the row.
template <class T>
__device__ __forceinline__ float4 load_logits(const T* row, int column, int columns, float fill) {
  if (column >= 0 && column + 4 <= columns) return load_quad(row + column, 4, true);
  const auto at = [&](int c) { return c >= 0 && c < columns ? Element<T>::to_float(row[c]) : fill; };
  return make_float4(at(column), at(column + 1), at(column + 2), at(column + 3));
}

template <class T>
__device__ __forceinline__ void store_logits(T* row, int column, int columns, const float4& x) {
  if (column >= 0 && column + 4 <= columns) return store_quad(row + column, x, 4, true);
  const auto put = [&](int c, float value) {
    if (c >= 0 && c < columns) row[c] = Element<T>::from_float(value);
  };
  put(column, x.x), put(column + 1, x.y), put(column + 2, x.z), put(column + 3, x.w);
}

template <class T>
__device__ __forceinline__ void cross_entropy(const CrossEntropyParams& p) {
  __shared__ SoftmaxSum scratch[kRowThreads / 32];
  const int64_t row = blockIdx.x, label = p.labels[row];
  T* logits = row_of<T>(p.logits, row);
  if (label == p.ignored) {
    if (threadIdx.x == 0) p.nll[row] = p.lse[row] = 0;
    if (!p.gradient) return;
    for_memory_quads(logits, p.columns,
                     [&](int c) { store_logits(logits, c, p.columns, make_float4(0, 0, 0, 0)); });
    return;
  }
  const bool known = label >= 0 && label < p.columns;
  const float picked = threadIdx.x == 0 && known ? Element<T>::to_float(logits[label]) : NAN;
  SoftmaxSum mine;
  for_memory_quads(logits, p.columns, [&](int c) {
    const float4 x = load_logits(logits, c, p.columns, -INFINITY);
    const float top = fmaxf(fmaxf(x.x, x.y), fmaxf(x.z, x.w));
    mine = merge(mine, {top, (exponential(x.x, top) + exponential(x.y, top)) +
                                 (exponential(x.z, top) + exponential(x.w, top))});
  });
  const SoftmaxSum all = merge_block(mine, scratch);
  const float lse = all.top + kLogTwo * ptx::log2_approx(all.sum);
  if (threadIdx.x == 0) p.nll[row] = lse - picked, p.lse[row] = lse;
  if (!p.gradient) return;
  const float factor = (1.0f + 2.0f * p.z_loss * lse) / all.sum * p.grad_scale;
  for_memory_quads(logits, p.columns, [&](int c) {
    const float4 x = load_logits(logits, c, p.columns, -INFINITY);
    float4 d = factor * make_float4(exponential(x.x, all.top), exponential(x.y, all.top),
                                    exponential(x.z, all.top), exponential(x.w, all.top));
    if (label == c) d.x -= p.grad_scale;
    if (label == c + 1) d.y -= p.grad_scale;
    if (label == c + 2) d.z -= p.grad_scale;
    if (label == c + 3) d.w -= p.grad_scale;
    store_logits(logits, c, p.columns, d);
  });
}

// One block.
__device__ __forceinline__ void loss_sum(const LossSumParams& p) {
  __shared__ double scratch[kRowThreads / 32];
  double sum = 0;
  for (int64_t row = threadIdx.x; row < p.rows; row += kRowThreads)
    sum += p.nll[row] + static_cast<double>(p.z_loss) * p.lse[row] * p.lse[row];
  sum = sum_block(sum, scratch);
  if (threadIdx.x == 0) *p.loss += sum;
}

}  // namespace longreach::cuda
