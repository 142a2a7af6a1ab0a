// Forward pass of interval attention on CPUs (FlashAttention-2, arXiv 2307.08691, Algorithm 1, transposed).
//
// Work: one task a (batch, head, tile of 64 queries); it visits the tiles of 64 keys that its rows may see,
// in order, so that the bits do not depend on threads. Memory traffic: K and V once a query tile. Statistics
// and O^T in fp32, base 2. The running maximum moves only when a score exceeds it by more than 2^kHeadroom:
// O^T is then rescaled; in between the exponentials may reach 2^kHeadroom, which fp32 sums hold without loss.
#include <cmath>
#include <limits>

#include "layers/ops/interval_attention/plan.h"
#include "layers/ops/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/interval_attention/cpu_forward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "layers/ops/interval_attention/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::interval::HWY_NAMESPACE {

constexpr float kHeadroom = 8.0f;
constexpr float kNoMaximum = -1e30f;  // finite, so that differences of maxima never are NaN

// Per query: the running maximum, the sum of 2^(s - maximum), and the factor that O^T is due.
struct Statistics {
  alignas(64) float maximum[kQueryTile], sum[kQueryTile], factor[kQueryTile];
};

// Turns kVectors vectors of columns of S^T (products q.k) into P^T. Returns whether O^T must be rescaled.
template <int kVectors, bool kMasked>
HWY_INLINE bool softmax_columns(const RowIntervals& rows, int64_t first_key, int64_t keys, int64_t column,
                                float scale, float* s, Statistics& statistics) {
  const FloatTag d;
  const auto factor = hn::Set(d, scale);
  Floats peak[kVectors], sum[kVectors];
  for (int v = 0; v < kVectors; ++v) peak[v] = hn::Set(d, kNoMaximum);
  for (int64_t j = 0; j < keys; ++j) {
    for (int v = 0; v < kVectors; ++v) {
      auto x = hn::Mul(hn::LoadU(d, s + j * kQueryTile + v * kLanes), factor);
      if constexpr (kMasked)
        x = hn::IfThenElse(visible_mask(rows, column + v * kLanes, first_key + j), x, hn::Set(d, kNoMaximum));
      peak[v] = hn::Max(x, peak[v]);
    }
  }
  bool rescale = false;
  for (int v = 0; v < kVectors; ++v) {
    const auto maximum = hn::LoadU(d, statistics.maximum + column + v * kLanes);
    rescale |= !hn::AllFalse(d, hn::Gt(peak[v], hn::Add(maximum, hn::Set(d, kHeadroom))));
  }
  for (int v = 0; v < kVectors; ++v) {
    float* maximum = statistics.maximum + column + v * kLanes;
    const auto before = hn::LoadU(d, maximum);
    peak[v] = rescale ? hn::Max(peak[v], before) : before;
    sum[v] = hn::LoadU(d, statistics.sum + column + v * kLanes);
    if (rescale) {
      const auto due = vec::exp2_bounded(d, hn::Sub(before, peak[v]));
      sum[v] = hn::Mul(sum[v], due);
      hn::StoreU(due, d, statistics.factor + column + v * kLanes);
      hn::StoreU(peak[v], d, maximum);
    }
  }
  for (int64_t j = 0; j < keys; ++j) {
    for (int v = 0; v < kVectors; ++v) {
      float* at = s + j * kQueryTile + v * kLanes;
      auto p = vec::exp2_bounded(d, hn::MulSub(hn::LoadU(d, at), factor, peak[v]));
      if constexpr (kMasked)
        p = hn::IfThenElseZero(visible_mask(rows, column + v * kLanes, first_key + j), p);
      sum[v] = hn::Add(sum[v], p);
      hn::StoreU(p, d, at);
    }
  }
  for (int v = 0; v < kVectors; ++v) hn::StoreU(sum[v], d, statistics.sum + column + v * kLanes);
  return rescale;
}

template <bool kMasked>
void softmax_tile(const RowIntervals& rows, int64_t first_key, int64_t keys, int64_t columns, float scale,
                  float* s, Statistics& statistics, float* o_t, int64_t v_size) {
  const FloatTag d;
  constexpr int kGroup = vec::kMaxVectors;
  for (int64_t column = 0; column < columns;) {
    const bool group = column + kGroup * kLanes <= columns;
    const int64_t width = group ? kGroup * kLanes : kLanes;
    const bool rescale =
        group ? softmax_columns<kGroup, kMasked>(rows, first_key, keys, column, scale, s + column, statistics)
              : softmax_columns<1, kMasked>(rows, first_key, keys, column, scale, s + column, statistics);
    for (int64_t c = column; rescale && c < column + width; c += kLanes) {
      const auto due = hn::LoadU(d, statistics.factor + c);
      for (int64_t e = 0; e < v_size; ++e) {
        float* at = o_t + e * kQueryTile + c;
        hn::StoreU(hn::Mul(hn::LoadU(d, at), due), d, at);
      }
    }
    column += width;
  }
}

// o = O^T / sum and lse = maximum + log sum; 0 and -inf for rows that saw no key.
template <class Element>
void store_tile(const Params& params, const QueryTile& tile, int64_t batch, int64_t head, int64_t columns,
                const Statistics& statistics, float* o_t, float* rows) {
  const FloatTag d;
  for (int64_t c = 0; c < columns; c += kLanes) {
    const auto sum = hn::LoadU(d, statistics.sum + c);
    const auto inverse = hn::IfThenElseZero(hn::Gt(sum, hn::Zero(d)), hn::Div(hn::Set(d, 1.0f), sum));
    for (int64_t e = 0; e < params.v_size; ++e) {
      float* at = o_t + e * kQueryTile + c;
      hn::StoreU(hn::Mul(hn::LoadU(d, at), inverse), d, at);
    }
  }
  Element* o = mutable_row<Element>(params.o, batch, tile.first, head);
  if constexpr (std::is_same_v<Element, float>) {
    vec::transpose(o_t, kQueryTile, params.v_size, tile.count, o, params.o.token);
  } else {
    vec::transpose(o_t, kQueryTile, params.v_size, tile.count, rows, params.v_size);
    for (int64_t i = 0; i < tile.count; ++i)
      vec::row_from_float(rows + i * params.v_size, params.v_size, o + i * params.o.token);
  }
  float* lse = params.lse + (batch * params.heads + head) * params.queries + tile.first;
  for (int64_t i = 0; i < tile.count; ++i)
    lse[i] = statistics.sum[i] > 0.0f ? (statistics.maximum[i] + std::log2(statistics.sum[i])) * kLn2
                                      : -std::numeric_limits<float>::infinity();
}

template <class Product>
void forward_tile(const Params& params, const KeyValueRows& key_values, const QueryTile& tile, int64_t batch,
                  int64_t head) {
  using Element = typename Product::Input;
  thread_local Product product;
  thread_local simd::Scratch<float> score_tile, output_tile, row_tile;
  const int64_t columns = pad_to_strip(tile.count);
  float* s = score_tile.get(kKeyTile * kQueryTile);
  float* o_t = output_tile.get(params.v_size * kQueryTile);
  std::memset(o_t, 0, static_cast<size_t>(params.v_size * kQueryTile) * sizeof(float));
  Statistics statistics;
  std::fill(statistics.maximum, statistics.maximum + kQueryTile, kNoMaximum);
  std::fill(statistics.sum, statistics.sum + kQueryTile, 0.0f);
  const RowIntervals rows = row_intervals(params, tile, batch, head);
  const KeyTiles tiles = key_tiles(tile, rows);
  product.set_queries(row_pointer<Element>(params.q, batch, tile.first, head), params.q.token, tile.count,
                      params.qk_size, columns);
  for (int64_t t = tiles.start(); t < tiles.end; t = tiles.next(t)) {
    const int64_t first_key = tile.key_begin + t * kKeyTile,
                  keys = std::min(kKeyTile, tile.key_end - first_key);
    const bool whole = rows.sees_all(first_key, first_key + keys);
    const Regions regions =
        whole ? Regions::whole(keys, columns) : Regions::visible(rows, first_key, keys, columns);
    if (regions.strip_count == 0) continue;
    product.set_keys(key_values, first_key, keys, params.qk_size);
    product.set_values(key_values, first_key, keys, params.v_size);
    product.pair_values();
    for (int i = 0; i < regions.strip_count; ++i) product.scores(regions.strips[i], s);
    const auto softmax = whole ? softmax_tile<false> : softmax_tile<true>;
    softmax(rows, first_key, keys, columns, params.scale * kLog2e, s, statistics, o_t, params.v_size);
    product.finish_probabilities(s, keys, columns);
    for (int i = 0; i < regions.half_count; ++i)
      if (regions.halves[i].key < regions.halves[i].key_end) product.add_output(regions.halves[i], s, o_t);
  }
  float* staging = std::is_same_v<Element, float> ? nullptr : row_tile.get(kQueryTile * params.v_size);
  store_tile<Element>(params, tile, batch, head, columns, statistics, o_t, staging);
}

void forward_one(const Params& params, const KeyValueRows& key_values, const QueryTile& tile, int64_t batch,
                 int64_t head) {
  if (params.dtype == DType::kFloat32)
    return forward_tile<FloatProduct<float>>(params, key_values, tile, batch, head);
  if (params.bf16_product == Bf16Product::kFloat)
    return forward_tile<FloatProduct<uint16_t>>(params, key_values, tile, batch, head);
  forward_tile<DotProduct>(params, key_values, tile, batch, head);
}

}  // namespace longreach::interval::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longreach::interval {
HWY_EXPORT(forward_one);

void forward_cpu(const Params& params) {
  const auto tiles = query_tiles(params);
  const auto count = static_cast<int64_t>(tiles.size());
  const auto kernel = HWY_DYNAMIC_DISPATCH(forward_one);
  PackedHeads k(params, params.k, params.qk_size, count * params.heads / params.key_heads);
  PackedHeads v(params, params.v, params.v_size, count * params.heads / params.value_heads);
  k.open(params.batches * params.key_heads);
  v.open(params.batches * params.value_heads);
  parallel_tiles(params.batches * params.key_heads,
                 [&](int64_t i) { k.fill(i / params.key_heads, i % params.key_heads, i); });
  parallel_tiles(params.batches * params.value_heads,
                 [&](int64_t i) { v.fill(i / params.value_heads, i % params.value_heads, i); });
  parallel_tiles(params.batches * params.heads * count, [&](int64_t task) {
    // Later tiles see more keys under a causal mask: longest first, so that threads finish together.
    const int64_t tile = count - 1 - task % count, head = task / count % params.heads,
                  batch = task / count / params.heads;
    const int64_t key_head = head * params.key_heads / params.heads,
                  value_head = head * params.value_heads / params.heads;
    const KeyValueRows rows{k.rows(batch, key_head, batch * params.key_heads + key_head),
                            v.rows(batch, value_head, batch * params.value_heads + value_head),
                            k.stride(),
                            v.stride(),
                            k.dtype(),
                            v.dtype()};
    kernel(params, rows, tiles[static_cast<size_t>(tile)], batch, head);
  });
}

}  // namespace longreach::interval
#endif
