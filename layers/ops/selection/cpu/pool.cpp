// Pooling of windows on CPUs, and its gradient.
//
//   mean_i = 1/n_i sum_t x_t,   max_i = x_{t*},  t* the first of the largest        t in window i
//   dx_t   = sum over windows i that hold t, over pools: dmean_i / n_i, or dmax_i where t = t*_i
//
// A window of one head is brought to fp32 once, into the first cache level; every pool reads it there, so
// that memory is read once whatever the number of pools. Elements of a head lie along the vector lanes,
// tokens are taken in order: sums are those of a plain loop. Forward's tasks are windows, backward's are runs
// of tokens, each of which gathers from the windows over it: nothing is added to by two threads, also where
// windows overlap.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "layers/ops/cpu/parallel.h"
#include "layers/ops/selection/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/selection/cpu/pool.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "layers/ops/cpu/gemm-inl.h"
#include "layers/ops/cpu/pack-inl.h"
#include "layers/ops/cpu/scratch.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::selection::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace vec = simd::HWY_NAMESPACE;
using vec::FloatTag;
using vec::kLanes;

template <class T>
T* at(const Strided& x, int64_t batch, int64_t token, int64_t head) {
  return static_cast<T*>(x.data) + batch * x.batch + token * x.token + head * x.head;
}

inline int32_t* picked_at(const Pooling& p, int64_t batch, int64_t window, int64_t head) {
  return p.picked + ((batch * p.windows + window) * p.heads + head) * p.picking * p.size;
}

// rows [tokens, padded] -> result [padded].
inline void mean_of(const float* rows, int64_t tokens, int64_t padded, float* result) {
  const FloatTag d;
  const auto count = hn::Set(d, static_cast<float>(tokens));
  for (int64_t c = 0; c < padded; c += kLanes) {
    auto sum = hn::Zero(d);
    for (int64_t t = 0; t < tokens; ++t) sum = hn::Add(sum, hn::LoadU(d, rows + t * padded + c));
    hn::StoreU(hn::Div(sum, count), d, result + c);
  }
}

// The largest (kSign = 1) or smallest (-1) and its place. NaN wins, as it does in at::max; the first one.
template <int kSign>
void best_of(const float* rows, int64_t tokens, int64_t padded, float* result, int32_t* place) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  for (int64_t c = 0; c < padded; c += kLanes) {
    auto best = hn::LoadU(d, rows + c);
    auto where = hn::Zero(di);
    for (int64_t t = 1; t < tokens; ++t) {
      const auto x = hn::LoadU(d, rows + t * padded + c);
      const auto further = kSign > 0 ? hn::Gt(x, best) : hn::Lt(x, best);
      const auto better = hn::Or(further, hn::AndNot(hn::IsNaN(best), hn::IsNaN(x)));
      best = hn::IfThenElse(better, x, best);
      where = hn::IfThenElse(hn::RebindMask(di, better), hn::Set(di, static_cast<int32_t>(t)), where);
    }
    hn::StoreU(best, d, result + c);
    hn::StoreU(where, di, place + c);
  }
}

struct Buffers {
  float *rows, *row;
  int32_t* places;
};

inline Buffers buffers(int64_t rows, int64_t padded) {
  static thread_local simd::Scratch<float> floats;
  static thread_local simd::Scratch<int32_t> places;
  float* data = floats.get((rows + 1) * padded);
  return {data + padded, data, places.get(padded)};
}

template <class T>
void pool_window(const Pooling& p, const PackedDocument& document, int64_t batch, int64_t window,
                 int64_t head) {
  const int64_t first = window * p.stride, tokens = std::min(p.width, document.keys - first),
                padded = vec::pad_to_lanes(p.size);
  const Buffers b = buffers(tokens, padded);
  vec::pad_tile(at<T>(p.x, batch, document.key + first, head), p.x.token, tokens, p.size, b.rows, padded,
                tokens, padded);
  T* to = at<T>(p.pooled, batch, document.window + window, head);
  int32_t* picked = picked_at(p, batch, document.window + window, head);
  for (int64_t i = 0; i < p.pool_count; ++i, to += p.size) {
    if (p.pools[i] == PoolKind::mean) {
      mean_of(b.rows, tokens, padded, b.row);
    } else {
      (p.pools[i] == PoolKind::max ? best_of<1> : best_of<-1>)(b.rows, tokens, padded, b.row, b.places);
      std::memcpy(picked, b.places, static_cast<size_t>(p.size) * sizeof(int32_t));
      picked += p.size;
    }
    vec::row_from_float(b.row, p.size, to);
  }
}

// Adds what the pools of one window give to the tokens [begin, end) of their document.
template <class T>
void add_window(const Pooling& p, const PackedDocument& document, int64_t batch, int64_t window, int64_t head,
                int64_t begin, int64_t end, float* rows, float* row) {
  const int64_t first = window * p.stride, tokens = std::min(p.width, document.keys - first),
                from = std::max(first, begin), to = std::min(first + tokens, end);
  const T* grad = at<T>(p.pooled, batch, document.window + window, head);
  const int32_t* picked = picked_at(p, batch, document.window + window, head);
  for (int64_t i = 0; i < p.pool_count; ++i, grad += p.size) {
    vec::row_to_float(grad, p.size, row);
    if (p.pools[i] == PoolKind::mean) {
      const auto count = static_cast<float>(tokens);
      for (int64_t c = 0; c < p.size; ++c) row[c] /= count;
      for (int64_t t = from; t < to; ++t)
        for (int64_t c = 0; c < p.size; ++c) rows[(t - begin) * p.size + c] += row[c];
      continue;
    }
    for (int64_t c = 0; c < p.size; ++c) {
      const int64_t t = first + picked[c];
      if (t >= from && t < to) rows[(t - begin) * p.size + c] += row[c];
    }
    picked += p.size;
  }
}

template <class T>
void gradient_run(const Pooling& p, const PackedDocument& document, int64_t batch, int64_t head,
                  int64_t begin, int64_t end) {
  const Buffers b = buffers(end - begin, p.size);
  std::fill(b.rows, b.rows + (end - begin) * p.size, 0.0f);
  const int64_t lowest = begin < p.width ? 0 : (begin - p.width) / p.stride + 1,
                highest = std::min(document.windows, (end - 1) / p.stride + 1);
  for (int64_t window = lowest; window < highest; ++window)
    add_window<T>(p, document, batch, window, head, begin, end, b.rows, b.row);
  for (int64_t t = begin; t < end; ++t)
    vec::row_from_float(b.rows + (t - begin) * p.size, p.size, at<T>(p.x, batch, document.key + t, head));
}

void pool_windows(const Pooling& p, const PackedDocument& document, int64_t batch, int64_t window) {
  for (int64_t head = 0; head < p.heads; ++head)
    (p.dtype == DType::kFloat32 ? pool_window<float> : pool_window<uint16_t>)(p, document, batch, window,
                                                                              head);
}

void gradient_runs(const Pooling& p, const PackedDocument& document, int64_t batch, int64_t begin,
                   int64_t end) {
  for (int64_t head = 0; head < p.heads; ++head)
    (p.dtype == DType::kFloat32 ? gradient_run<float> : gradient_run<uint16_t>)(p, document, batch, head,
                                                                                begin, end);
}

}  // namespace longreach::selection::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longreach::selection {
namespace {

// Pieces of about this many elements are worth a task.
constexpr int64_t kElementsATask = 1 << 15;

int64_t grain(int64_t elements) {
  return std::max<int64_t>(1, kElementsATask / std::max<int64_t>(elements, 1));
}

}  // namespace

HWY_EXPORT(pool_windows);
HWY_EXPORT(gradient_runs);

void pool_cpu(const Pooling& p) {
  const auto run = HWY_DYNAMIC_DISPATCH(pool_windows);
  for (int64_t n = 0; n < p.document_count; ++n) {
    const PackedDocument& document = p.documents[n];
    parallel_for(0, p.batches * document.windows, grain(p.width * p.heads * p.size),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i)
                     run(p, document, i / document.windows, i % document.windows);
                 });
  }
}

void pool_backward_cpu(const Pooling& p) {
  constexpr int64_t kRun = 64;  // tokens
  const auto run = HWY_DYNAMIC_DISPATCH(gradient_runs);
  for (int64_t n = 0; n < p.document_count; ++n) {
    const PackedDocument& document = p.documents[n];
    const int64_t runs = document.blocks(kRun);
    parallel_for(0, p.batches * runs, grain(kRun * p.heads * p.size), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i % runs * kRun;
        run(p, document, i / runs, first, std::min(first + kRun, document.keys));
      }
    });
  }
}

}  // namespace longreach::selection
#endif
