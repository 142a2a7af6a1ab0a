// Pooling of windows of tokens, and its gradient.
//
//   mean_i = 1/n_i sum_t x_t,   max_i = x_{t*},  t* the first of the largest        t in window i
//   dx_t   = sum over windows i that hold t, over pools: dmean_i / n_i, or dmax_i where t = t*_i
//
// Work: a block has one window (forward) or one token (backward) and 256 quads of elements of its heads; a
// thread has a quad. Tokens, windows and pools are taken in order, in fp32: the sums of a plain loop, without
// atomics. All pools are made in one pass over the window. Memory traffic: each token once for every window
// over it; backward, each window's gradients and places once for every token in it, mostly from a cache.
#pragma once
#include "layers/ops/cuda/element.cuh"
#include "layers/ops/cuda/search.cuh"
#include "layers/ops/selection/cuda/params.h"

namespace longreach::selection {

enum : uint32_t { kMean, kMax, kMin };  // as PoolKind

__device__ __forceinline__ uint32_t pool_kind(const CudaPool& p, int pool) { return p.pools >> 2 * pool & 3; }

// The document that holds token or window `index`: the last one that begins no later.
template <int32_t CudaSpan::*kBegin>
__device__ __forceinline__ CudaSpan find_span(const CudaPool& p, int index) {
  if (p.spans == nullptr) return p.span;
  const int found = cuda::find_begun<kBegin>(p.spans, p.span_count, index);
  const int4 words = *reinterpret_cast<const int4*>(p.spans + found);
  return {words.x, words.y, words.z, words.w};
}

// The quad of a thread: four elements of a head from `element` on, of which `count` are there.
struct PoolPlace {
  int64_t batch;
  int index, head, element, count;  // index: of the token or window

  __device__ __forceinline__ PoolPlace(const CudaPool& p, int indices) {
    const unsigned parts = static_cast<unsigned>(p.parts), block = blockIdx.x / parts;
    const int quads = (p.size + 3) / 4;
    const int share = static_cast<int>(blockIdx.x % parts * kPoolThreads + threadIdx.x);
    batch = block / static_cast<unsigned>(indices);
    index = static_cast<int>(block % static_cast<unsigned>(indices));
    head = share / quads;
    element = share % quads * 4;
    count = p.size - element;
  }
  template <class T>
  __device__ __forceinline__ T* at(const CudaTensor& x, int token) const {
    return static_cast<T*>(x.data) + batch * x.batch + token * x.token + head * x.head + element;
  }
  __device__ __forceinline__ int32_t* picked(const CudaPool& p, int window) const {
    return p.picked + ((batch * p.windows + window) * p.heads + head) * p.picking * p.size + element;
  }
};

__device__ __forceinline__ void store_places(int32_t* to, const int (&x)[4], int count, bool whole) {
  if (whole && count >= 4) {
    *reinterpret_cast<int4*>(to) = make_int4(x[0], x[1], x[2], x[3]);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (i < count) to[i] = x[i];
}

__device__ __forceinline__ void load_places(int (&x)[4], const int32_t* from, int count, bool whole) {
  if (whole && count >= 4) {
    const int4 all = *reinterpret_cast<const int4*>(from);
    x[0] = all.x, x[1] = all.y, x[2] = all.z, x[3] = all.w;
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) x[i] = i < count ? from[i] : -1;
}

__device__ __forceinline__ void unpack_quad(float (&to)[4], const float4& x) {
  to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
}

// The largest (kSign = 1) or smallest (-1) and its place; NaN wins, the first one.
template <int kSign>
struct Extreme {
  float best[4];
  int place[4];

  __device__ __forceinline__ void begin(const float (&x)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) best[i] = x[i], place[i] = 0;
  }
  __device__ __forceinline__ void add(const float (&x)[4], int token) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool further = kSign > 0 ? x[i] > best[i] : x[i] < best[i];
      if (!further && !(x[i] != x[i] && best[i] == best[i])) continue;
      best[i] = x[i];
      place[i] = token;
    }
  }
};

template <class T>
__device__ __forceinline__ void pool(const CudaPool& p) {
  const PoolPlace place(p, p.windows);
  if (place.head >= p.heads) return;
  const CudaSpan span = find_span<&CudaSpan::window>(p, place.index);
  const int first = (place.index - span.window) * p.stride, tokens = min(p.width, span.tokens - first);
  const T* x = place.at<T>(p.x, span.token + first);
  float sum[4] = {}, values[4];
  Extreme<1> most;
  Extreme<-1> least;
  unpack_quad(values, cuda::load_quad(x, place.count, p.x.quads));
  most.begin(values);
  least.begin(values);
#pragma unroll 4
  for (int token = 0; token < tokens; ++token) {
    unpack_quad(values, cuda::load_quad(x + token * p.x.token, place.count, p.x.quads));
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] += values[i];
    if (p.picking == 0) continue;
    most.add(values, token);
    least.add(values, token);
  }
  T* to = place.at<T>(p.pooled, place.index);
  int32_t* picked = place.picked(p, place.index);
  const auto write = [&](const float(&v)[4]) {
    cuda::store_quad(to, make_float4(v[0], v[1], v[2], v[3]), place.count, p.pooled.quads);
  };
  const float count = static_cast<float>(tokens);
#pragma unroll 1
  for (int i = 0; i < p.pool_count; ++i, to += p.size) {
    const uint32_t kind = pool_kind(p, i);
    if (kind == kMean) {
      write({sum[0] / count, sum[1] / count, sum[2] / count, sum[3] / count});
      continue;
    }
    kind == kMax ? write(most.best) : write(least.best);
    kind == kMax ? store_places(picked, most.place, place.count, p.size % 4 == 0)
                 : store_places(picked, least.place, place.count, p.size % 4 == 0);
    picked += p.size;
  }
}

// What the pools of one window give to its token `token`.
template <class T>
__device__ __forceinline__ void add_window(const CudaPool& p, const PoolPlace& place, int window, int token,
                                           int tokens, float (&sum)[4]) {
  const T* grad = place.at<T>(p.pooled, window);
  const int32_t* picked = place.picked(p, window);
  const float count = static_cast<float>(tokens);
#pragma unroll 1
  for (int i = 0; i < p.pool_count; ++i, grad += p.size) {
    float g[4];
    unpack_quad(g, cuda::load_quad(grad, place.count, p.pooled.quads));
    if (pool_kind(p, i) == kMean) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[e] += g[e] / count;
      continue;
    }
    int places[4];
    load_places(places, picked, place.count, p.size % 4 == 0);
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (places[e] == token) sum[e] += g[e];
    picked += p.size;
  }
}

template <class T>
__device__ __forceinline__ void pool_gradient(const CudaPool& p) {
  const PoolPlace place(p, p.tokens);
  if (place.head >= p.heads) return;
  const CudaSpan span = find_span<&CudaSpan::token>(p, place.index);
  const int token = place.index - span.token;
  const int lowest = token < p.width ? 0 : (token - p.width) / p.stride + 1,
            highest = min(span.windows, token / p.stride + 1);
  float sum[4] = {};
#pragma unroll 1
  for (int window = lowest; window < highest; ++window) {
    const int first = window * p.stride;
    add_window<T>(p, place, span.window + window, token - first, min(p.width, span.tokens - first), sum);
  }
  cuda::store_quad(place.at<T>(p.x, place.index), make_float4(sum[0], sum[1], sum[2], sum[3]), place.count,
                   p.x.quads);
}

}  // namespace longreach::selection
