// Join of partial softmax attentions: o = sum_p w_p o_p, w_p = exp(lse_p - lse), lse = log sum_p exp(lse_p),
// and backward
//
//   do_p = w_p do,    dlse_p = w_p (do . o_p - do . o + dlse),    do . o = sum_p w_p do . o_p
//
// Work: a warp has a row of a head, the parts one after another, sums in fp32, without atomics. A part with
// lse = -inf is never read, so that whatever stands in its o cannot reach the result; any other takes part,
// NaN included.
// Memory traffic: forward, the parts and o once; backward, the parts and do once (do again for every part,
// from a cache), gradients once.
#pragma once
#include "layers/ops/cuda/element.cuh"
#include "layers/ops/merge/cuda/params.h"

namespace longreach::merge_kernels {

struct JoinRow {
  int64_t batch, head, token;

  __device__ __forceinline__ JoinRow(const CudaMerge& p, int64_t index)
      : batch(index / p.tokens / p.heads), head(index / p.tokens % p.heads), token(index % p.tokens) {}
  template <class T>
  __device__ __forceinline__ T* o(const Part& part) const {
    return static_cast<T*>(part.o) + batch * part.o_batch + token * part.o_token + head * part.o_head;
  }
  __device__ __forceinline__ float& lse(const Part& part) const {
    return part.lse[batch * part.lse_batch + head * part.lse_head + token * part.lse_token];
  }
};

__device__ __forceinline__ int64_t join_row() {
  return static_cast<int64_t>(blockIdx.x) * kJoinRows + threadIdx.x / 32;
}
__device__ __forceinline__ int join_lane() { return static_cast<int>(threadIdx.x % 32); }

__device__ __forceinline__ bool is_empty(float lse) { return lse == -INFINITY; }

// exp(part - total), 0 for an empty part.
__device__ __forceinline__ float join_weight(float part, float total) {
  constexpr float kLog2OfE = 1.44269504f;
  return is_empty(part) ? 0.0f : ptx::exp2_approx((part - total) * kLog2OfE);
}

__device__ __forceinline__ float4 scaled(float a, const float4& b) {
  return make_float4(a * b.x, a * b.y, a * b.z, a * b.w);
}
__device__ __forceinline__ void add_scaled(float4& sum, float a, const float4& b) {
  sum = make_float4(fmaf(a, b.x, sum.x), fmaf(a, b.y, sum.y), fmaf(a, b.z, sum.z), fmaf(a, b.w, sum.w));
}

template <class T>
__device__ __forceinline__ void join(const CudaMerge& p) {
  constexpr float kLogTwo = 0.69314718f;
  if (join_row() >= p.rows) return;
  const JoinRow row(p, join_row());
  float top = -INFINITY, total = 0;
  bool seen = false;
#pragma unroll 4
  for (int i = 0; i < p.part_count; ++i) {
    const float lse = row.lse(p.parts[i]);
    top = fmaxf(top, lse);  // of NaN and a number, the number: NaN comes back with the weights
    seen = seen || !is_empty(lse);
  }
#pragma unroll 4
  for (int i = 0; i < p.part_count; ++i) total += join_weight(row.lse(p.parts[i]), top);
  if (join_lane() == 0) row.lse(p.result) = seen ? fmaf(kLogTwo, ptx::log2_approx(total), top) : -INFINITY;
  const float scale = seen ? 1.0f / total : 0.0f;
  for (int c = 4 * join_lane(); c < p.dim; c += 4 * 32) {
    float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 2
    for (int i = 0; i < p.part_count; ++i) {
      const float lse = row.lse(p.parts[i]);
      if (is_empty(lse)) continue;
      add_scaled(sum, join_weight(lse, top), cuda::load_quad(row.o<T>(p.parts[i]) + c, p.dim - c, p.quads));
    }
    cuda::store_quad(row.o<T>(p.result) + c, scaled(scale, sum), p.dim - c, p.quads);
  }
}

// do_p = w do; returns do . o_p, which all lanes get.
template <class T>
__device__ __forceinline__ float join_part_gradient(const CudaMergeGradient& p, const JoinRow& row, int part,
                                                    float weight, bool empty) {
  const CudaMerge& f = p.forward;
  float dot = 0;
  for (int c = 4 * join_lane(); c < f.dim; c += 4 * 32) {
    const int count = f.dim - c;
    const float4 grad = cuda::load_quad(row.o<T>(p.grad) + c, count, f.quads);
    const float4 own = empty ? make_float4(0, 0, 0, 0) : scaled(weight, grad);
    cuda::store_quad(row.o<T>(p.grads[part]) + c, own, count, f.quads);
    if (empty) continue;
    const float4 o = cuda::load_quad(row.o<T>(f.parts[part]) + c, count, f.quads);
    dot += (grad.x * o.x + grad.y * o.y) + (grad.z * o.z + grad.w * o.w);
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) dot += __shfl_xor_sync(0xffffffffu, dot, step);
  return dot;
}

template <class T>
__device__ __forceinline__ void join_gradient(const CudaMergeGradient& p) {
  const CudaMerge& f = p.forward;
  if (join_row() >= f.rows) return;
  const JoinRow row(f, join_row());
  const float total = row.lse(f.result), d_lse = p.grad.lse == nullptr ? 0.0f : row.lse(p.grad);
  float joined = 0;  // do . o
  for (int i = 0; i < f.part_count; ++i) {
    const float lse = row.lse(f.parts[i]), weight = join_weight(lse, total);
    const float dot = join_part_gradient<T>(p, row, i, weight, is_empty(lse));
    if (!is_empty(lse)) joined = fmaf(weight, dot, joined);
    if (join_lane() == i % 32) row.lse(p.grads[i]) = dot;  // kept there until `joined` is known
  }
  for (int i = join_lane(); i < f.part_count; i += 32) {
    const float lse = row.lse(f.parts[i]);
    float& own = row.lse(p.grads[i]);
    own = is_empty(lse) ? 0.0f : join_weight(lse, total) * (own - joined + d_lse);
  }
}

}  // namespace longreach::merge_kernels
