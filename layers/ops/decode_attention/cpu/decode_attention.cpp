// Attention of a few queries on CPUs. A task a query and head.
//
// Work: 4 D a visible pair. Memory traffic: the visible rows of K and V once a head.
#include <algorithm>
#include <limits>

#include "layers/ops/cpu/parallel.h"
#include "layers/ops/cpu/prefetch.h"
#include "layers/ops/cpu/scratch.h"
#include "layers/ops/decode_attention/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/decode_attention/cpu/decode_attention.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "layers/ops/cpu/rows-inl.h"
#include "layers/ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::decoding::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace kernel = simd::HWY_NAMESPACE;
using namespace kernel;

// The rows of one head of keys or values that a query sees.
template <class T>
struct SeenRows {
  const T* data;
  int64_t stride;
  Seen seen;
  int64_t size;

  HWY_INLINE const T* row(int64_t i) const {
    return data + (i < seen.sinks ? i : seen.latest + i - seen.sinks) * stride;
  }
  // Rows of one head lie apart.
  HWY_INLINE void fetch(int64_t i) const {
    if (i < seen.count) simd::prefetch_row(row(i), size * static_cast<int64_t>(sizeof(T)));
  }
};

template <class T>
HWY_INLINE float dot(const float* q, const T* k, int64_t size) {
  RowVector even = hn::Zero(kRowTag), odd = hn::Zero(kRowTag);
  for_vectors(size, [&](int64_t i, int64_t count) {
    const RowVector next = hn::MulAdd(load(k + i, count), load(q + i, count), even);
    even = odd;
    odd = next;
  });
  return sum(hn::Add(even, odd));
}

// scores[i] = 2^(scores[i] - top); their sum.
HWY_INLINE float exponentials(float* scores, int64_t count, float top) {
  const RowVector highest = hn::Set(kRowTag, top);
  RowVector total = hn::Zero(kRowTag);
  for_vectors(count, [&](int64_t i, int64_t n) {
    const RowVector power = kernel::exp2_bounded(kRowTag, hn::Sub(load(scores + i, n), highest));
    const RowVector some = hn::IfThenElseZero(hn::FirstN(kRowTag, static_cast<size_t>(n)), power);
    store(some, scores + i, n);
    total = hn::Add(total, some);
  });
  return sum(total);
}

// o = sum over the rows of weights[i] v_i, times `scale`: kVectors vectors of features at a time.
template <int kVectors, class T>
HWY_INLINE void weighted_sum(const float* weights, const SeenRows<T>& values, int64_t from, int64_t features,
                             float scale, T* o) {
  const int64_t step = lanes();
  RowVector even[kVectors], odd[kVectors];
  for (int c = 0; c < kVectors; ++c) even[c] = odd[c] = hn::Zero(kRowTag);
  for (int64_t i = 0; i < values.seen.count; ++i) {
    values.fetch(i + simd::kRowsAhead);
    const RowVector weight = hn::Set(kRowTag, weights[i]);
    const T* row = values.row(i) + from;
    for (int c = 0; c < kVectors; ++c) {
      const RowVector next = hn::MulAdd(weight, load(row + c * step, features - c * step), even[c]);
      even[c] = odd[c];
      odd[c] = next;
    }
  }
  for (int c = 0; c < kVectors; ++c)
    store(hn::Mul(hn::Add(even[c], odd[c]), hn::Set(kRowTag, scale)), o + from + c * step,
          features - c * step);
}

template <class T>
void attend_row(const Params& p, int64_t batch, int64_t head, int64_t query) {
  const Seen& seen = p.seen[static_cast<size_t>(query)];
  const int64_t count = seen.count;
  const auto head_rows = [&](const Strided& x, int64_t heads, int64_t size) {
    const T* data = static_cast<const T*>(x.data) + batch * x.batch + head * heads / p.heads * x.head;
    return SeenRows<T>{data, x.token, seen, size};
  };
  const SeenRows<T> keys = head_rows(p.k, p.key_heads, p.qk_size),
                    values = head_rows(p.v, p.value_heads, p.v_size);
  simd::Scratch<float> work(p.qk_size + count);
  float *q = work.data(), *scores = q + p.qk_size;
  row_to_float(static_cast<const T*>(p.q.data) + batch * p.q.batch + query * p.q.token + head * p.q.head,
               p.qk_size, q);
  constexpr float kLog2e = 1.44269504f;
  float top = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < count; ++i) {
    keys.fetch(i + simd::kRowsAhead);
    scores[i] = dot(q, keys.row(i), p.qk_size) * p.scale * kLog2e;
    top = std::max(top, scores[i]);
  }
  const float total = exponentials(scores, count, top);
  const float scale = count == 0 ? 0.0f : 1.0f / total;
  T* o = static_cast<T*>(p.o.data) + batch * p.o.batch + query * p.o.token + head * p.o.head;
  constexpr int kVectors = 4;
  const int64_t step = lanes();
  int64_t from = 0;
  for (; from + (kVectors - 1) * step < p.v_size; from += kVectors * step)
    weighted_sum<kVectors>(scores, values, from, p.v_size - from, scale, o);
  for (; from < p.v_size; from += step) weighted_sum<1>(scores, values, from, p.v_size - from, scale, o);
}

void attend_one(const Params& p, int64_t batch, int64_t head, int64_t query) {
  (p.dtype == DType::kBFloat16 ? attend_row<uint16_t> : attend_row<float>)(p, batch, head, query);
}

}  // namespace longreach::decoding::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longreach::decoding {
HWY_EXPORT(attend_one);

void forward(const Params& params) {
  const auto run = HWY_DYNAMIC_DISPATCH(attend_one);
  parallel_tiles(params.batches * params.queries * params.heads, [&](int64_t task) {
    run(params, task / params.heads / params.queries, task % params.heads,
        task / params.heads % params.queries);
  });
}

}  // namespace longreach::decoding
#endif
