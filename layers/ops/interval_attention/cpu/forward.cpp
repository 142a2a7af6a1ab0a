// Forward pass of interval attention on CPUs (FlashAttention-2, arXiv 2307.08691, Algorithm 1, transposed).
//
// Work: one task a (batch, head, tile of 64 queries); it visits the tiles of 64 keys that its rows may see,
// in order, so that the bits do not depend on threads. Memory traffic: K and V once a query tile.
#include "layers/ops/cpu/parallel.h"
#include "layers/ops/interval_attention/cpu/plan.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/interval_attention/cpu/forward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "layers/ops/interval_attention/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::interval::HWY_NAMESPACE {

// o = O^T / sum and lse = maximum + log sum; 0 and -inf for rows that see no key.
template <class Element>
void store_tile(const Params& params, const QueryTile& tile, int64_t batch, int64_t head, int64_t columns,
                const Statistics& statistics, float* o_t, float* staging) {
  divide_output(statistics, columns, params.v_size, o_t);
  store_transposed(o_t, params.v_size, tile.count, mutable_row<Element>(params.o, batch, tile.first, head),
                   params.o.token, staging);
  float* lse = params.lse + (batch * params.heads + head) * params.queries + tile.first;
  for (int64_t i = 0; i < tile.count; ++i) lse[i] = statistics.lse(i);
}

template <class Product>
void forward_tile(const Params& params, const KeyValueRows& key_values, const QueryTile& tile, int64_t batch,
                  int64_t head) {
  using Element = typename Product::Input;
  thread_local Product product;
  const typename Product::Session session;
  thread_local simd::Scratch<float> score_tile, output_tile, row_tile;
  const int64_t columns = pad_to_strip(tile.count);
  float* s = score_tile.get(kKeyTile * kQueryTile);
  float* o_t = output_tile.get(params.v_size * kQueryTile);
  std::memset(o_t, 0, static_cast<size_t>(params.v_size * kQueryTile) * sizeof(float));
  Statistics statistics;
  const RowIntervals rows = row_intervals(params, tile, batch, head);
  const KeyTiles tiles = key_tiles(tile, rows);
  for (int64_t i = 0; i < kQueryTile; ++i) statistics.sees[i] = rows.sees_any(i, tile.key_begin);
  product.set_queries(row_pointer<Element>(params.q, batch, tile.first, head), params.q.token, tile.count,
                      params.qk_size, columns);
  for (int64_t t = tiles.start(); t < tiles.end; t = tiles.next(t)) {
    const int64_t first_key = tile.key_begin + t * kKeyTile,
                  keys = std::min(kKeyTile, tile.key_end - first_key);
    const bool whole = rows.sees_all(first_key, first_key + keys);
    const TileVisibility seen{rows, first_key};
    const Regions regions = whole ? Regions::whole(keys, columns) : Regions::visible(seen, keys, columns);
    if (regions.strip_count == 0) continue;
    product.set_keys(key_values, first_key, keys, params.qk_size);
    product.set_values(key_values, first_key, keys, params.v_size);
    product.pair_values();
    for (int i = 0; i < regions.strip_count; ++i) product.scores(regions.strips[i], s);
    const auto softmax = whole ? online_softmax<false, TileVisibility> : online_softmax<true, TileVisibility>;
    softmax(seen, keys, columns, params.scale * kLog2e, s, statistics, o_t, params.v_size);
    if (const OperandRows values = rows_from(key_values.v, key_values.v_row, key_values.v_dtype, first_key);
        !whole && !values.finite(keys, params.v_size)) {
      add_seen_transposed(seen, keys, columns, s, values, params.v_size, o_t);
      continue;
    }
    product.finish_probabilities(s, keys, columns);
    for (int i = 0; i < regions.half_count; ++i)
      if (regions.halves[i].key < regions.halves[i].key_end) product.add_output(regions.halves[i], s, o_t);
  }
  float* staging = std::is_same_v<Element, float> ? nullptr : row_tile.get(kQueryTile * params.v_size);
  store_tile<Element>(params, tile, batch, head, columns, statistics, o_t, staging);
}

void forward_one(const Params& params, const KeyValueRows& key_values, const QueryTile& tile, int64_t batch,
                 int64_t head) {
  with_product(params.dtype, params.bf16_product,
               [&]<class Product>() { forward_tile<Product>(params, key_values, tile, batch, head); });
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
  PackedHeads k(params.k, params.keys, params.qk_size, params.dtype, params.bf16_product,
                count * params.heads / params.key_heads);
  PackedHeads v(params.v, params.keys, params.v_size, params.dtype, params.bf16_product,
                count * params.heads / params.value_heads);
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
