// Forward pass of block attention on CPUs (FlashAttention-2, arXiv 2307.08691, Algorithm 1, over lists of key
// blocks; a whole group of heads reads what it has gathered: arXiv 2502.11089, section 3.4).
//
// Work: a tile of rows is up to 64 pairs (head, query) that read one list, one key head and one value head.
// It walks over the list in order, 64 keys at a time (blocks of 16 and 32 several together), so that bits do
// not depend on threads. A task is one tile of rows, or, where statistics are added up over them, all tiles
// of a row of the lists. Memory traffic: the listed keys and values once a tile of rows. Statistics and O^T
// in fp32.
#include <algorithm>
#include <limits>
#include <numeric>

#include "layers/ops/block_attention/cpu/plan.h"
#include "layers/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/block_attention/cpu/forward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "layers/ops/block_attention/cpu/statistics-inl.h"
#include "layers/ops/cpu/seen-inl.h"
#include "layers/ops/cpu/softmax_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::block::HWY_NAMESPACE {

// Which of the gathered keys the queries of a tile see.
struct ListedVisibility {
  const int32_t* visible_end;  // [kTile], a query each
  const ListedKeys& keys;

  HWY_INLINE hn::Mask<FloatTag> mask(int64_t column, int64_t j) const {
    const FloatTag d;
    const hn::RebindToSigned<FloatTag> di;
    return hn::RebindMask(d, hn::Lt(hn::Set(di, keys.key[j]), hn::LoadU(di, visible_end + column)));
  }
  bool any(int64_t column, int64_t from, int64_t to) const {
    return *std::min_element(keys.key + from, keys.key + to) <
           *std::max_element(visible_end + column, visible_end + column + kStrip);
  }
};

template <class Product>
class ForwardTile {
 public:
  void run(const TileWork& work) {
    const Params& params = *work.params;
    const RowTile& tile = *work.tile;
    const int64_t columns = pad_to_strip(tile.count);
    float* s = scores_.get(kTile * kTile);
    float* o_t = output_.get(params.v_size * kTile);
    std::memset(o_t, 0, static_cast<size_t>(params.v_size * kTile) * sizeof(float));
    Statistics statistics;
    alignas(64) int32_t visible_end[kTile];
    const auto [first_end, last_end] = visible_ends(work, visible_end);
    set_queries(work, columns);
    const bool report = params.block_max != nullptr;
    if (report) entries_.open(params.slots);
    const int64_t list = work.head * params.list_heads / params.heads;
    ListWalk walk(params, tile.row, list_of(params, work.batch, list, tile.row.row), last_end);
    ListedKeys both[2];
    bool more = walk.next(both[0]);
    int32_t lowest = std::numeric_limits<int32_t>::max();  // of the listed keys
    for (int turn = 0; more; turn ^= 1) {
      const ListedKeys& keys = both[turn];
      more = walk.next(both[turn ^ 1]);
      if (more) prefetch(work, both[turn ^ 1]);
      const bool whole = keys.key_end <= first_end;
      const ListedVisibility seen{visible_end, keys};
      const Regions regions =
          whole ? Regions::whole(keys.count, columns) : Regions::visible(seen, keys.count, columns);
      lowest = std::min(lowest, *std::min_element(keys.key, keys.key + keys.count));
      const OperandRows values = set_key_values(work, keys);
      for (int i = 0; i < regions.strip_count; ++i) product_.scores(regions.strips[i], s);
      const auto softmax =
          whole ? online_softmax<false, ListedVisibility> : online_softmax<true, ListedVisibility>;
      softmax(seen, keys.count, columns, params.scale * kLog2e, s, statistics, o_t, params.v_size);
      if (report) entries_.add(keys, s, statistics, columns);
      if (!whole && !values.finite(keys.count, params.v_size)) {
        add_seen_transposed(seen, keys.count, columns, s, values, params.v_size, o_t);
        continue;
      }
      product_.finish_probabilities(s, keys.count, columns);
      for (int i = 0; i < regions.half_count; ++i)
        if (regions.halves[i].key < regions.halves[i].key_end) product_.add_output(regions.halves[i], s, o_t);
    }
    for (int64_t i = 0; i < kTile; ++i) statistics.sees[i] = lowest < visible_end[i];
    divide_output(statistics, columns, params.v_size, o_t);
    store(work, statistics, o_t);
  }

 private:
  using Element = typename Product::Input;
  struct Ends {
    int64_t first, last;
  };

  // Rows past the tile's end repeat the last one.
  static Ends visible_ends(const TileWork& work, int32_t* ends) {
    const RowTile& tile = *work.tile;
    tile.for_runs([&](int64_t column, int64_t count, int64_t, int64_t query) {
      for (int64_t i = 0; i < count; ++i)
        ends[column + i] = static_cast<int32_t>(tile.row.visible_end(query + i, work.params->causal));
    });
    std::fill(ends + tile.count, ends + kTile, ends[tile.count - 1]);
    return {*std::min_element(ends, ends + kTile), *std::max_element(ends, ends + kTile)};
  }

  // Rows of several heads are not equally far apart: they are brought together first.
  void set_queries(const TileWork& work, int64_t columns) {
    const Params& params = *work.params;
    const RowTile& tile = *work.tile;
    Element* rows = tile.one_run() ? nullptr : queries_.get(kTile * params.qk_size);
    const Element* from = rows;
    tile.for_runs([&](int64_t column, int64_t count, int64_t head, int64_t query) {
      const Element* q = row_pointer<Element>(params.q, work.batch, query, work.head + head);
      if (rows == nullptr) from = q;
      for (int64_t i = 0; rows != nullptr && i < count; ++i)
        std::copy_n(q + i * params.q.token, params.qk_size, rows + (column + i) * params.qk_size);
    });
    product_.set_queries(from, rows == nullptr ? params.q.token : params.qk_size, tile.count, params.qk_size,
                         columns);
  }

  // Returns the rows of the values.
  OperandRows set_key_values(const TileWork& work, const ListedKeys& keys) {
    const Params& params = *work.params;
    KeyValueRows rows = work.key_values;
    int64_t first = keys.segments[0].first_key;
    if (!keys.contiguous) {
      rows.k = gather(rows.k, rows.k_row, rows.k_dtype, params.qk_size, keys, gathered_keys_);
      rows.v = gather(rows.v, rows.v_row, rows.v_dtype, params.v_size, keys, gathered_values_);
      rows.k_row = params.qk_size, rows.v_row = params.v_size;
      first = 0;
    }
    product_.set_keys(rows, first, keys.count, params.qk_size);
    product_.set_values(rows, first, keys.count, params.v_size);
    product_.pair_values();
    return rows_from(rows.v, rows.v_row, rows.v_dtype, first);
  }

  // Brings the next keys and values near: blocks follow in no order that the CPU could guess.
  static void prefetch(const TileWork& work, const ListedKeys& keys) {
    const KeyValueRows& rows = work.key_values;
    prefetch(rows.k, rows.k_row, rows.k_dtype, work.params->qk_size, keys);
    prefetch(rows.v, rows.v_row, rows.v_dtype, work.params->v_size, keys);
  }
  static void prefetch(const void* from, int64_t row, DType dtype, int64_t size, const ListedKeys& keys) {
    constexpr int64_t kLine = 64;
    constexpr int kSecondLevel = 2;
    const int64_t width = dtype == DType::kFloat32 ? 4 : 2;
    for (int64_t j = 0; j < keys.count; ++j) {
      const char* at = static_cast<const char*>(from) + keys.key[j] * row * width;
      for (int64_t line = 0; line < size * width; line += kLine)
        __builtin_prefetch(at + line, 0, kSecondLevel);
    }
  }

  static const void* gather(const void* from, int64_t row, DType dtype, int64_t size, const ListedKeys& keys,
                            simd::Scratch<char>& scratch) {
    const int64_t width = dtype == DType::kFloat32 ? 4 : 2, bytes = size * width;
    char* to = scratch.get(kTile * bytes);
    for (int64_t j = 0; j < keys.count; ++j)
      std::memcpy(to + j * bytes, static_cast<const char*>(from) + keys.key[j] * row * width,
                  static_cast<size_t>(bytes));
    return to;
  }

  // o, lse (-inf for rows that see no key) and the statistics.
  void store(const TileWork& work, const Statistics& statistics, const float* o_t) {
    const Params& params = *work.params;
    float* staging = staging_.get(kTile * params.v_size);
    const bool one_run = work.tile->one_run();
    if (!one_run) vec::transpose(o_t, kTile, params.v_size, work.tile->count, staging, params.v_size);
    work.tile->for_runs([&](int64_t column, int64_t count, int64_t in_group, int64_t query) {
      const int64_t head = work.head + in_group;
      Element* o = mutable_row<Element>(params.o, work.batch, query, head);
      if (one_run) store_transposed(o_t, params.v_size, count, o, params.o.token, staging);
      for (int64_t i = 0; !one_run && i < count; ++i)
        vec::row_from_float(staging + (column + i) * params.v_size, params.v_size, o + i * params.o.token);
      float* lse = params.lse + (work.batch * params.heads + head) * params.queries + query;
      for (int64_t i = 0; i < count; ++i) lse[i] = statistics.lse(column + i);
      if (params.block_max == nullptr) return;
      const int64_t heads = params.per_list ? params.list_heads : params.heads;
      const int64_t at =
          ((work.batch * heads + head * heads / params.heads) * params.rows + work.tile->row.row) *
          params.slots;
      entries_.reduce(statistics, column, count, params.block_max + at, params.block_sum + at);
    });
  }

  Product product_;
  EntryStatistics entries_;
  simd::Scratch<float> scores_, output_, staging_;
  simd::Scratch<Element> queries_;
  simd::Scratch<char> gathered_keys_, gathered_values_;
};

template <class Product>
void forward_tile(const TileWork& work) {
  thread_local ForwardTile<Product> tile;
  const typename Product::Session session;
  tile.run(work);
}

void forward_one(const TileWork& work) {
  with_product(work.params->dtype, work.params->bf16_product,
               [&]<class Product>() { forward_tile<Product>(work); });
}

}  // namespace longreach::block::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longreach::block {
HWY_EXPORT(forward_one);

namespace {

// How often a tile of the keys is read.
int64_t key_reuse(const Params& params, int64_t row_tiles, int64_t kv_heads) {
  const int64_t readers = row_tiles * (params.heads / heads_per_group(params)) / kv_heads;
  return readers * params.slots * params.key_block / std::max<int64_t>(params.keys, 1);
}

// Walks over units: the smallest ranges of query heads that own their key and value heads and what they
// report. Keys and values of few units at a time are copied: the copies stay in cache, and their pages are
// used again.
class Forward {
 public:
  explicit Forward(const Params& params)
      : params_(params),
        tiles_(row_tiles(params)),
        group_(heads_per_group(params)),
        unit_(params.heads / std::gcd(params.key_heads, params.value_heads)),
        owner_(params.block_max != nullptr && params.per_list ? params.heads / params.list_heads : group_),
        k_(packed(params.k, params.qk_size, params.key_heads)),
        v_(packed(params.v, params.v_size, params.value_heads)) {
    unit_ = std::lcm(unit_, owner_);
  }

  void run() {
    const int64_t units = params_.batches * (params_.heads / unit_);
    const int64_t floats = params_.keys * (key_heads() * params_.qk_size + value_heads() * params_.v_size);
    const int64_t bytes = std::max<int64_t>(floats * static_cast<int64_t>(sizeof(float)), 1);
    const int64_t wave = std::clamp<int64_t>(kCopyBytes / bytes, 1, std::max<int64_t>(units, 1));
    k_.open(wave * key_heads());
    v_.open(wave * value_heads());
    for (int64_t first = 0; first < units; first += wave) {
      first_unit_ = first;
      run_units(std::min(wave, units - first));
    }
  }

 private:
  static constexpr int64_t kCopyBytes = int64_t{8} << 20;

  int64_t key_heads() const { return unit_ * params_.key_heads / params_.heads; }
  int64_t value_heads() const { return unit_ * params_.value_heads / params_.heads; }

  PackedHeads packed(const Strided& input, int64_t size, int64_t heads) const {
    return {input,
            params_.keys,
            size,
            params_.dtype,
            params_.bf16_product,
            key_reuse(params_, static_cast<int64_t>(tiles_.tiles.size()), heads)};
  }

  void fill(PackedHeads& input, int64_t units, int64_t heads, int64_t all_heads) const {
    constexpr int64_t kRows = 512;
    if (!input.packed()) return;
    const int64_t pieces = ceil_div(params_.keys, kRows);
    parallel_tiles(units * heads * pieces, [&](int64_t task) {
      const int64_t slot = task / pieces, head = first_unit_ * heads + slot, first = task % pieces * kRows;
      input.fill_rows(head / all_heads, head % all_heads, slot, first, std::min(first + kRows, params_.keys));
    });
  }

  // The last rows see most under a causal mask: longest first, so that threads finish together.
  void run_units(int64_t units) {
    fill(k_, units, key_heads(), params_.key_heads);
    fill(v_, units, value_heads(), params_.value_heads);
    const bool report = params_.block_max != nullptr;
    const int64_t count = report ? params_.rows : static_cast<int64_t>(tiles_.tiles.size());
    const int64_t owners = unit_ / owner_;
    parallel_tiles(units * owners * count, [&](int64_t task) {
      const int64_t head = (first_unit_ * owners + task / count) * owner_, at = count - 1 - task % count;
      if (report)
        report_row(head / params_.heads, head % params_.heads, at);
      else
        run_tile(head / params_.heads, head % params_.heads, at);
    });
  }

  void run_tile(int64_t batch, int64_t head, int64_t tile) const {
    const int64_t key_head = head * params_.key_heads / params_.heads,
                  value_head = head * params_.value_heads / params_.heads;
    const int64_t first = first_unit_ * unit_;  // of the heads of all batches
    const int64_t key_slot = batch * params_.key_heads + key_head - first * params_.key_heads / params_.heads,
                  value_slot =
                      batch * params_.value_heads + value_head - first * params_.value_heads / params_.heads;
    HWY_DYNAMIC_DISPATCH(forward_one)
    ({&params_,
      &tiles_.tiles[static_cast<size_t>(tile)],
      batch,
      head,
      {k_.rows(batch, key_head, key_slot), v_.rows(batch, value_head, value_slot), k_.stride(), v_.stride(),
       k_.dtype(), v_.dtype()}});
  }

  // All tiles of a row of the lists that add to the same statistics, in order.
  void report_row(int64_t batch, int64_t head, int64_t row) const {
    const int64_t reported = params_.per_list ? params_.list_heads : params_.heads;
    const int64_t first = head * reported / params_.heads,
                  last = std::max(first + 1, (head + owner_) * reported / params_.heads);
    for (int64_t h = first; h < last; ++h) {
      const int64_t at = ((batch * reported + h) * params_.rows + row) * params_.slots;
      std::fill_n(params_.block_max + at, params_.slots, 0.0f);
      std::fill_n(params_.block_sum + at, params_.slots, 0.0f);
    }
    for (int64_t h = head; h < head + owner_; h += group_)
      for (int64_t t = tiles_.start[static_cast<size_t>(row)]; t < tiles_.start[static_cast<size_t>(row) + 1];
           ++t)
        run_tile(batch, h, t);
  }

  const Params& params_;
  RowTiles tiles_;
  int64_t group_, unit_, owner_, first_unit_ = 0;
  PackedHeads k_, v_;
};

}  // namespace

void forward_cpu(const Params& params) { Forward(params).run(); }

}  // namespace longreach::block
#endif
