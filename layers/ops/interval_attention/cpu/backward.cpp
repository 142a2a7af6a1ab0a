// Backward pass of interval attention on CPUs (FlashAttention-2, arXiv 2307.08691, Algorithm 2, transposed).
//
//   delta_i = do_i . o_i - dlse_i
//   P = exp(scale q k - lse)    dV = P^T dO    dS = scale P (dO V^T - delta)    dQ = dS K    dK = dS^T Q
//
// Five products a pair of tiles. Work: a unit is a batch entry and the smallest group of query heads that
// owns its key and value heads; it walks over its heads and query tiles in order, keeps dQ^T of one tile in
// cache and adds to dK and dV of all keys: no atomics, fixed order. Where there are few units, key tiles are
// dealt out to `chunks` tasks; each then has a part of dQ, and the parts are added in order. Shapes alone
// decide on that, so that bits do not depend on threads. dK and dV add up in the fp32 outputs themselves
// where their rows are whole vectors, else in fp32 work space.
#include <cmath>
#include <numeric>

#include "layers/ops/cpu/parallel.h"
#include "layers/ops/cpu/spares.h"
#include "layers/ops/interval_attention/cpu/plan.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/interval_attention/cpu/backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "layers/ops/interval_attention/cpu/tile-inl.h"

#ifndef LONGREACH_INTERVAL_ATTENTION_BACKWARD_WORK
#define LONGREACH_INTERVAL_ATTENTION_BACKWARD_WORK
namespace longreach::interval {

// One query tile of one head against the key tiles of one chunk.
struct TileWork {
  const Params* params;
  const Gradients* gradients;
  const QueryTile* tile;
  int64_t batch, head;
  int64_t chunk, chunks;
  // fp32 accumulators of the head's keys and values: row 0 is key 0.
  float *dk, *dv;
  int64_t dk_row, dv_row;
  KeyValueRows key_values;
  float* dq_part;  // null: dQ goes to the output; else [count, qk_size]
};

}  // namespace longreach::interval
#endif

HWY_BEFORE_NAMESPACE();
namespace longreach::interval::HWY_NAMESPACE {

// Per query: lse in base 2 and delta; zero past the tile's end, where dO is zero too. Rows that see nothing
// have an lse of -inf: what comes of it is masked.
struct RowTerms {
  alignas(64) float lse[kQueryTile], delta[kQueryTile];
};

template <class Element>
void row_terms(const TileWork& work, RowTerms& terms) {
  const Params& params = *work.params;
  std::memset(&terms, 0, sizeof terms);
  const int64_t row = (work.batch * params.heads + work.head) * params.queries + work.tile->first;
  for (int64_t i = 0; i < work.tile->count; ++i) {
    const int64_t token = work.tile->first + i;
    terms.lse[i] = params.lse[row + i] * kLog2e;
    terms.delta[i] =
        dot(row_pointer<Element>(params.o, work.batch, token, work.head),
            row_pointer<Element>(work.gradients->d_o, work.batch, token, work.head), params.v_size);
    if (work.gradients->d_lse != nullptr) terms.delta[i] -= work.gradients->d_lse[row + i];
  }
}

// S^T (products) becomes P^T and dP^T becomes dS^T, for kVectors vectors of columns.
template <int kVectors, bool kMasked>
HWY_INLINE void gradient_columns(const TileVisibility& seen, const RowTerms& terms, int64_t keys,
                                 int64_t column, float scale, float* s, float* ds) {
  const FloatTag d;
  const auto factor = hn::Set(d, scale * kLog2e), outer = hn::Set(d, scale);
  Floats lse[kVectors], delta[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    lse[v] = hn::LoadU(d, terms.lse + column + v * kLanes);
    delta[v] = hn::LoadU(d, terms.delta + column + v * kLanes);
  }
  for (int64_t j = 0; j < keys; ++j) {
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = j * kQueryTile + column + v * kLanes;
      // P <= 1: beyond that lies what the rounding of lse has dropped, without a bound for scores of 1e9 and
      // more.
      auto p = vec::exp2_bounded(
          d, vec::at_most(d, hn::Zero(d), hn::MulSub(hn::LoadU(d, s + at), factor, lse[v])));
      auto g = hn::Mul(hn::Mul(p, outer), hn::Sub(hn::LoadU(d, ds + at), delta[v]));
      if constexpr (kMasked) {
        const auto mask = seen.mask(column + v * kLanes, j);
        p = hn::IfThenElseZero(mask, p);
        g = hn::IfThenElseZero(mask, g);
      }
      hn::StoreU(p, d, s + at);
      hn::StoreU(g, d, ds + at);
    }
  }
}

template <bool kMasked>
void gradient_tile(const TileVisibility& seen, const RowTerms& terms, int64_t keys, int64_t columns,
                   float scale, float* s, float* ds) {
  constexpr int kGroup = vec::kMaxVectors;
  int64_t column = 0;
  for (; column + kGroup * kLanes <= columns; column += kGroup * kLanes)
    gradient_columns<kGroup, kMasked>(seen, terms, keys, column, scale, s, ds);
  for (; column < columns; column += kLanes)
    gradient_columns<1, kMasked>(seen, terms, keys, column, scale, s, ds);
}

template <class Element>
void store_query_gradient(const TileWork& work, const float* dq_t, float* staging) {
  const int64_t size = work.params->qk_size, count = work.tile->count;
  if (work.dq_part != nullptr) return vec::transpose(dq_t, kQueryTile, size, count, work.dq_part, size);
  const Strided& out = work.gradients->dq;
  store_transposed(dq_t, size, count, mutable_row<Element>(out, work.batch, work.tile->first, work.head),
                   out.token, staging);
}

// What the products below add for a tile that is seen in part, where an operand is not finite.
struct SeenTile {
  OperandRows q, d_o;
  bool finite;  // q and dO

  template <class Element>
  static SeenTile of(const TileWork& work) {
    const Params& params = *work.params;
    const auto rows = [&](const Strided& x) {
      return OperandRows{row_pointer<Element>(x, work.batch, work.tile->first, work.head), x.token,
                         params.dtype};
    };
    SeenTile tile{rows(params.q), rows(work.gradients->d_o), false};
    tile.finite =
        tile.q.finite(work.tile->count, params.qk_size) && tile.d_o.finite(work.tile->count, params.v_size);
    return tile;
  }

  void add(const TileWork& work, const TileVisibility& seen, const OperandRows& k, int64_t keys,
           int64_t columns, const float* p, const float* ds, float* dq_t) const {
    const int64_t count = work.tile->count, qk_size = work.params->qk_size;
    add_seen_rows(seen, keys, count, p, d_o, work.params->v_size, work.dv + seen.first_key * work.dv_row,
                  work.dv_row);
    add_seen_rows(seen, keys, count, ds, q, qk_size, work.dk + seen.first_key * work.dk_row, work.dk_row);
    add_seen_transposed(seen, keys, columns, ds, k, qk_size, dq_t);
  }
};

template <class Product>
void backward_tile(const TileWork& work) {
  using Element = typename Product::Input;
  thread_local Product product;
  const typename Product::Session session;
  thread_local simd::Scratch<float> score_tile, gradient_scores, dq_tile, staging;
  const Params& params = *work.params;
  const QueryTile& tile = *work.tile;
  const int64_t batch = work.batch, columns = pad_to_strip(tile.count);
  float *s = score_tile.get(kKeyTile * kQueryTile), *ds = gradient_scores.get(kKeyTile * kQueryTile);
  float* dq_t = dq_tile.get(params.qk_size * kQueryTile);
  std::memset(dq_t, 0, static_cast<size_t>(params.qk_size * kQueryTile) * sizeof(float));
  const RowIntervals rows = row_intervals(params, tile, batch, work.head);
  const KeyTiles tiles = key_tiles(tile, rows);
  RowTerms terms;
  SeenTile seen_tile{};
  bool prepared = false;
  for (int64_t t = tiles.start(); t < tiles.end; t = tiles.next(t)) {
    if ((tile.key_begin / kKeyTile + t) % work.chunks != work.chunk) continue;
    const int64_t first_key = tile.key_begin + t * kKeyTile,
                  keys = std::min(kKeyTile, tile.key_end - first_key);
    const bool whole = rows.sees_all(first_key, first_key + keys);
    const TileVisibility seen{rows, first_key};
    const Regions regions = whole ? Regions::whole(keys, columns) : Regions::visible(seen, keys, columns);
    if (regions.strip_count == 0) continue;
    if (!prepared) {
      row_terms<Element>(work, terms);
      product.set_query_gradients(
          row_pointer<Element>(params.q, batch, tile.first, work.head), params.q.token,
          row_pointer<Element>(work.gradients->d_o, batch, tile.first, work.head), work.gradients->d_o.token,
          tile.count, params.qk_size, params.v_size, columns);
      seen_tile = SeenTile::of<Element>(work);
      prepared = true;
    }
    product.set_keys(work.key_values, first_key, keys, params.qk_size);
    product.set_values(work.key_values, first_key, keys, params.v_size);
    product.pair_keys();
    for (int i = 0; i < regions.strip_count; ++i) {
      product.scores(regions.strips[i], s);
      product.value_scores(regions.strips[i], ds);
    }
    const auto to_gradient = whole ? gradient_tile<false> : gradient_tile<true>;
    to_gradient(seen, terms, keys, columns, params.scale, s, ds);
    if (const OperandRows k =
            rows_from(work.key_values.k, work.key_values.k_row, work.key_values.k_dtype, first_key);
        !whole && !(seen_tile.finite && k.finite(keys, params.qk_size))) {
      seen_tile.add(work, seen, k, keys, columns, s, ds, dq_t);
      continue;
    }
    product.finish_probability_rows(s, keys);
    product.finish_gradients(ds, keys, columns);
    for (int i = 0; i < regions.strip_count; ++i) {
      product.add_value_gradient(regions.strips[i], s, work.dv + first_key * work.dv_row, work.dv_row);
      product.add_key_gradient(regions.strips[i], ds, work.dk + first_key * work.dk_row, work.dk_row);
    }
    for (int i = 0; i < regions.half_count; ++i)
      if (regions.halves[i].key < regions.halves[i].key_end)
        product.add_query_gradient(regions.halves[i], ds, dq_t);
  }
  store_query_gradient<Element>(work, dq_t, staging.get(kQueryTile * params.qk_size));
}

void backward_one(const TileWork& work) {
  with_product(work.params->dtype, work.params->bf16_product,
               [&]<class Product>() { backward_tile<Product>(work); });
}

// parts[0] += parts[1] + ... of `count` elements each, `stride` apart.
void add_parts(float* parts, int64_t stride, int64_t chunks, int64_t count) {
  const FloatTag d;
  for (int64_t c = 1; c < chunks; ++c) {
    const float* part = parts + c * stride;
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes)
      hn::StoreU(hn::Add(hn::LoadU(d, parts + i), hn::LoadU(d, part + i)), d, parts + i);
    for (; i < count; ++i) parts[i] += part[i];
  }
}

}  // namespace longreach::interval::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longreach::interval {
HWY_EXPORT(backward_one);
HWY_EXPORT(store_rows);
HWY_EXPORT(add_parts);
HWY_EXPORT(padded_size);

namespace {

void* element_at(const Strided& x, DType dtype, int64_t batch, int64_t token, int64_t head) {
  const int64_t offset = batch * x.batch + token * x.token + head * x.head;
  return static_cast<char*>(x.data) + offset * (dtype == DType::kFloat32 ? 4 : 2);
}

// fp32 accumulators of one output, dk or dv, by head: the output itself, or work space.
class Accumulator {
 public:
  Accumulator(const Params& params, const Strided& out, DType dtype, int64_t size, bool dot_product,
              bool in_place)
      : params_(params), out_(out), dtype_(dtype), size_(size) {
    padded_ = HWY_DYNAMIC_DISPATCH(padded_size)(size, dot_product);
    direct_ = dtype == DType::kFloat32 && padded_ == size && (in_place || out.token == size);
  }

  // Space for `slots` (batch, head) pairs, cleared. The caller decides which pair lives in which slot.
  void open(int64_t slots) {
    if (!direct_) space_.get(slots * params_.keys * padded_);
  }
  void clear(int64_t batch, int64_t head, int64_t slot) {
    for (int64_t j = 0; j < params_.keys; ++j)
      std::memset(row(batch, head, slot) + j * stride(), 0, static_cast<size_t>(padded_) * sizeof(float));
  }
  float* row(int64_t batch, int64_t head, int64_t slot) const {
    if (direct_) return static_cast<float*>(out_.data) + batch * out_.batch + head * out_.head;
    return space_.data() + slot * params_.keys * padded_;
  }
  int64_t stride() const { return direct_ ? out_.token : padded_; }
  void store(int64_t batch, int64_t head, int64_t slot) const {
    if (direct_) return;
    HWY_DYNAMIC_DISPATCH(store_rows)
    (row(batch, head, slot), padded_, params_.keys, size_, dtype_, element_at(out_, dtype_, batch, 0, head),
     out_.token);
  }

 private:
  const Params& params_;
  const Strided& out_;
  DType dtype_;
  int64_t size_, padded_;
  bool direct_;
  simd::Scratch<float> space_;
};

// Tasks to cut the backward pass into when there are few units, and the room for parts of dQ that this may
// take.
constexpr int64_t kTasks = 8;
constexpr int64_t kPartBytes = int64_t{8} << 20;

int64_t chunk_count(const Params& params, int64_t units) {
  int64_t visible = params.documents > 0 ? params.keys / std::max<int64_t>(params.documents, 1) : 0;
  if (params.window > 0 && params.lo == nullptr) visible = std::min(visible, params.window + params.sinks);
  // A chunk repeats the packing of each query tile: it must be paid for by some key tiles.
  const int64_t useful = std::max<int64_t>(visible / kKeyTile / 4, 1);
  return std::clamp<int64_t>((kTasks + units - 1) / std::max<int64_t>(units, 1), 1, useful);
}

}  // namespace

// Walks over units and chunks; see the top of this file.
class Backward {
 public:
  Backward(const Params& params, const Gradients& gradients)
      : params_(params),
        gradients_(gradients),
        tiles_(query_tiles(params)),
        head_groups_(std::gcd(params.key_heads, params.value_heads)),
        units_(params.batches * head_groups_),
        chunks_(chunk_count(params, units_)),
        dot_(params.dtype == DType::kBFloat16 && params.bf16_product != Bf16Product::kFloat) {}

  void run() { chunks_ == 1 ? run_units() : run_chunks(); }

 private:
  int64_t key_heads() const { return params_.key_heads / head_groups_; }
  int64_t value_heads() const { return params_.value_heads / head_groups_; }

  // What a unit reads and adds to. Slots: those of one unit, or (shared) of all units one after another.
  struct Storage {
    Accumulator dk, dv;
    PackedHeads k, v;
    bool shared;
  };

  Storage storage(bool shared) const {
    const auto reuse = static_cast<int64_t>(tiles_.size()) * params_.heads;
    Storage s{{params_, gradients_.dk, gradients_.key_dtype, params_.qk_size, dot_, shared},
              {params_, gradients_.dv, gradients_.key_dtype, params_.v_size, dot_, shared},
              {params_.k, params_.keys, params_.qk_size, params_.dtype, params_.bf16_product,
               reuse / params_.key_heads},
              {params_.v, params_.keys, params_.v_size, params_.dtype, params_.bf16_product,
               reuse / params_.value_heads},
              shared};
    const int64_t units = shared ? units_ : 1;
    s.dk.open(units * key_heads()), s.k.open(units * key_heads());
    s.dv.open(units * value_heads()), s.v.open(units * value_heads());
    return s;
  }

  void run_units() {
    Spares<Storage> spares;
    parallel_tiles(units_, [&](int64_t unit) {
      auto s = spares.take([&] { return storage(false); });
      open_unit(unit, *s);
      visit(unit, 0, 0, static_cast<int64_t>(tiles_.size()), *s, nullptr);
      close_unit(unit, *s);
      spares.give_back(std::move(s));
    });
  }

  void run_chunks() {
    Storage s = storage(true);
    parallel_tiles(units_, [&](int64_t unit) { open_unit(unit, s); });
    const int64_t tile_floats = kQueryTile * params_.qk_size, rows = params_.batches * params_.heads;
    const int64_t count = static_cast<int64_t>(tiles_.size());
    const int64_t room = std::max<int64_t>(
        kPartBytes / static_cast<int64_t>(sizeof(float)) / (tile_floats * rows * chunks_), 1);
    const int64_t part = rows * std::min(room, count) * tile_floats;
    simd::Scratch<float> parts(part * chunks_);
    for (int64_t first = 0; first < count; first += room) {
      const int64_t last = std::min(first + room, count);
      parallel_tiles(units_ * chunks_, [&](int64_t task) {
        visit(task / chunks_, task % chunks_, first, last, s, parts.data() + task % chunks_ * part);
      });
      parallel_tiles(rows * (last - first),
                     [&](int64_t index) { add_up(index, first, last, parts.data(), part); });
    }
    parallel_tiles(units_, [&](int64_t unit) { close_unit(unit, s); });
  }

  // Calls f(batch, head, slot) for the unit's heads, `count` a unit.
  template <class F>
  void for_heads(int64_t unit, int64_t count, bool shared, F&& f) const {
    for (int64_t i = 0; i < count; ++i)
      f(unit / head_groups_, unit % head_groups_ * count + i, (shared ? unit * count : 0) + i);
  }
  void open_unit(int64_t unit, Storage& s) const {
    for_heads(unit, key_heads(), s.shared, [&](int64_t b, int64_t h, int64_t slot) {
      s.dk.clear(b, h, slot);
      s.k.fill(b, h, slot);
    });
    for_heads(unit, value_heads(), s.shared, [&](int64_t b, int64_t h, int64_t slot) {
      s.dv.clear(b, h, slot);
      s.v.fill(b, h, slot);
    });
  }
  void close_unit(int64_t unit, Storage& s) const {
    for_heads(unit, key_heads(), s.shared,
              [&](int64_t b, int64_t h, int64_t slot) { s.dk.store(b, h, slot); });
    for_heads(unit, value_heads(), s.shared,
              [&](int64_t b, int64_t h, int64_t slot) { s.dv.store(b, h, slot); });
  }

  // All heads of a unit and query tiles [first, last) against one chunk of the keys. parts: null, or
  // [batches, heads, last - first, kQueryTile, qk_size].
  void visit(int64_t unit, int64_t chunk, int64_t first, int64_t last, const Storage& s, float* parts) const {
    const auto kernel = HWY_DYNAMIC_DISPATCH(backward_one);
    const int64_t batch = unit / head_groups_, group = params_.heads / head_groups_,
                  head0 = unit % head_groups_ * group;
    for (int64_t head = head0; head < head0 + group; ++head) {
      const int64_t key_head = head * params_.key_heads / params_.heads;
      const int64_t value_head = head * params_.value_heads / params_.heads;
      const int64_t key_slot = (s.shared ? unit * key_heads() : 0) + key_head % key_heads();
      const int64_t value_slot = (s.shared ? unit * value_heads() : 0) + value_head % value_heads();
      for (int64_t t = first; t < last; ++t) {
        TileWork work{
            .params = &params_,
            .gradients = &gradients_,
            .tile = &tiles_[static_cast<size_t>(t)],
            .batch = batch,
            .head = head,
            .chunk = chunk,
            .chunks = chunks_,
            .dk = s.dk.row(batch, key_head, key_slot),
            .dv = s.dv.row(batch, value_head, value_slot),
            .dk_row = s.dk.stride(),
            .dv_row = s.dv.stride(),
            .key_values = {s.k.rows(batch, key_head, key_slot), s.v.rows(batch, value_head, value_slot),
                           s.k.stride(), s.v.stride(), s.k.dtype(), s.v.dtype()},
            .dq_part = nullptr};
        if (parts != nullptr)
          work.dq_part = parts + ((batch * params_.heads + head) * (last - first) + t - first) * kQueryTile *
                                     params_.qk_size;
        kernel(work);
      }
    }
  }

  // dQ of one (batch, head, tile): its parts in order of chunks.
  void add_up(int64_t index, int64_t first, int64_t last, float* parts, int64_t part) {
    const QueryTile& tile = tiles_[static_cast<size_t>(first + index % (last - first))];
    const int64_t row = index / (last - first);
    float* sum = parts + index * kQueryTile * params_.qk_size;
    HWY_DYNAMIC_DISPATCH(add_parts)(sum, part, chunks_, tile.count * params_.qk_size);
    HWY_DYNAMIC_DISPATCH(store_rows)
    (sum, params_.qk_size, tile.count, params_.qk_size, params_.dtype,
     element_at(gradients_.dq, params_.dtype, row / params_.heads, tile.first, row % params_.heads),
     gradients_.dq.token);
  }

  const Params& params_;
  const Gradients& gradients_;
  std::vector<QueryTile> tiles_;
  int64_t head_groups_, units_, chunks_;
  bool dot_;
};

void backward_cpu(const Params& params, const Gradients& gradients) { Backward(params, gradients).run(); }

}  // namespace longreach::interval
#endif
