// Tiles of keys of block attention against the queries that read them, for every Highway target: all five
// products of the backward pass (backward.cpp has the equations).
//
// The transposed lists say which queries read a block of keys: up to 64 of its keys are packed, dK^T and dV^T
// of them stay in cache, and the pairs (head, query) that read them come by, 64 at a time, whatever the query
// block. So keys play here the part of queries in softmax_tile (columns of the scores), and queries that of
// keys. dQ adds up in fp32, in the output itself where that is fp32.
#if defined(LONGREACH_LAYERS_OPS_BLOCK_ATTENTION_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGREACH_LAYERS_OPS_BLOCK_ATTENTION_BACKWARD_INL_H_
#undef LONGREACH_LAYERS_OPS_BLOCK_ATTENTION_BACKWARD_INL_H_
#else
#define LONGREACH_LAYERS_OPS_BLOCK_ATTENTION_BACKWARD_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "layers/ops/block_attention/cpu/plan.h"
#include "layers/ops/cpu/products-inl.h"
#include "layers/ops/cpu/seen-inl.h"
#include "layers/ops/cpu/softmax_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::block::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using namespace softmax_tile::HWY_NAMESPACE;

// Up to kTile pairs (head, query), in stretches of consecutive queries of a head.
struct Pairs {
  struct Run {
    int64_t at, count, head, query;
  };
  Run runs[kTile];
  int64_t run_count = 0, count = 0;
  alignas(64) float lse[kTile], delta[kTile];  // lse in base 2
  int32_t visible_end[kTile];

  bool one_run() const { return run_count == 1; }
};

// Which keys of a tile (lanes) the pairs (rows) see.
struct PairVisibility {
  const Pairs& pairs;
  int64_t first_key;

  HWY_INLINE hn::Mask<FloatTag> mask(int64_t column, int64_t j) const {
    const FloatTag d;
    const hn::RebindToSigned<FloatTag> di;
    const auto key = hn::Iota(di, static_cast<int32_t>(first_key + column));
    return hn::RebindMask(d, hn::Lt(key, hn::Set(di, pairs.visible_end[j])));
  }
  bool any(int64_t column, int64_t from, int64_t to) const {
    return *std::max_element(pairs.visible_end + from, pairs.visible_end + to) > first_key + column;
  }
};

// S (products) becomes P and dP becomes dS. Entries that are not seen become 0.
template <bool kMasked>
void gradient_tile(const PairVisibility& seen, int64_t columns, float scale, float* s, float* ds) {
  const FloatTag d;
  const auto factor = hn::Set(d, scale * kLog2e), outer = hn::Set(d, scale);
  const Pairs& pairs = seen.pairs;
  for (int64_t j = 0; j < pairs.count; ++j) {
    const auto lse = hn::Set(d, pairs.lse[j]), delta = hn::Set(d, pairs.delta[j]);
    for (int64_t c = 0; c < columns; c += kLanes) {
      const int64_t at = j * kTile + c;
      // P <= 1: beyond that lies what the rounding of lse has dropped, without a bound for scores of 1e9 and
      // more.
      auto p =
          vec::exp2_bounded(d, vec::at_most(d, hn::Zero(d), hn::MulSub(hn::LoadU(d, s + at), factor, lse)));
      auto g = hn::Mul(hn::Mul(p, outer), hn::Sub(hn::LoadU(d, ds + at), delta));
      if constexpr (kMasked) {
        const auto mask = seen.mask(c, j);
        p = hn::IfThenElseZero(mask, p);
        g = hn::IfThenElseZero(mask, g);
      }
      hn::StoreU(p, d, s + at);
      hn::StoreU(g, d, ds + at);
    }
  }
}

inline void add_row(const float* from, int64_t size, float* to) {
  const FloatTag d;
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes)
    hn::StoreU(hn::Add(hn::LoadU(d, to + i), hn::LoadU(d, from + i)), d, to + i);
  for (; i < size; ++i) to[i] += from[i];
}

template <class Product>
class BackwardUnit {
 public:
  void run(const UnitWork& work) {
    work_ = &work;
    const Params& params = *work.params;
    const int64_t floats = part_floats(params, work.key_heads(), work.value_heads());
    for (int64_t t = work.first; t < work.last; ++t) {
      tile_ = &work.tiles[t];
      float* sums = work.parts != nullptr ? work.parts + (t - work.first) * floats : sums_.get(floats);
      std::memset(sums, 0, static_cast<size_t>(floats) * sizeof(float));
      packed_key_head_ = packed_value_head_ = -1;
      for (int64_t head = work.head; head < work.head + work.heads; head += work.group) run_group(head, sums);
      if (work.parts == nullptr) store(sums);
    }
  }

  // dK and dV of the tile out of their sums.
  void store(const UnitWork& work, const KeyTile& tile, const float* sums) {
    work_ = &work, tile_ = &tile;
    store(sums);
  }

 private:
  using Element = typename Product::Input;
  using Copy = typename Product::Copy;

  // The tile of keys against the queries of one group of heads.
  void run_group(int64_t head, float* sums) {
    const Params& params = *work_->params;
    head_ = head;
    key_head_ = head * params.key_heads / params.heads;
    value_head_ = head * params.value_heads / params.heads;
    dk_t_ = sums + (key_head_ - work_->head * params.key_heads / params.heads) * params.qk_size * kTile;
    dv_t_ = sums + work_->key_heads() * params.qk_size * kTile +
            (value_head_ - work_->head * params.value_heads / params.heads) * params.v_size * kTile;
    pairs_.run_count = pairs_.count = 0;
    const TransposedList& list = work_->lists[head * params.list_heads / params.heads];
    for (int64_t i = list.start[static_cast<size_t>(tile_->block)];
         i < list.start[static_cast<size_t>(tile_->block) + 1]; ++i)
      add_list_row(list_row(params, *tile_->document, list.rows[static_cast<size_t>(i)]));
    if (pairs_.count > 0) run_pairs();
  }

  // The queries of a row of the lists, in slices; slices are dealt out to chunks. Queries before which the
  // tile of keys lies in the future are left out.
  void add_list_row(const ListRow& row) {
    const Params& params = *work_->params;
    const int64_t slices = ceil_div(params.query_block, kTile), end = row.first + row.tokens;
    const int64_t seeing = params.causal ? tile_->first - row.shift : row.first;
    for (int64_t slice = 0; slice * kTile < row.tokens; ++slice) {
      if ((row.row * slices + slice) % work_->chunks != work_->chunk) continue;
      const int64_t first = std::max(row.first + slice * kTile, seeing),
                    last = std::min(row.first + (slice + 1) * kTile, end);
      if (first >= last) continue;
      // Whole tiles start on their own: they are not copied then.
      if (work_->group * (last - first) >= kTile && pairs_.count > 0) run_pairs();
      for (int64_t head = head_; head < head_ + work_->group; ++head) add_queries(row, head, first, last);
    }
  }

  void add_queries(const ListRow& row, int64_t head, int64_t first, int64_t last) {
    const Params& params = *work_->params;
    while (first < last) {
      const int64_t count = std::min(last - first, kTile - pairs_.count);
      const int64_t at = (work_->batch * params.heads + head) * params.queries + first;
      for (int64_t i = 0; i < count; ++i) {
        pairs_.lse[pairs_.count + i] = params.lse[at + i] * kLog2e;  // -inf where nothing is seen: masked
        pairs_.delta[pairs_.count + i] = work_->delta[at + i];
        pairs_.visible_end[pairs_.count + i] =
            static_cast<int32_t>(row.visible_end(first + i, params.causal));
      }
      pairs_.runs[pairs_.run_count++] = {pairs_.count, count, head, first};
      pairs_.count += count;
      first += count;
      if (pairs_.count == kTile) run_pairs();
    }
  }

  // One pair of tiles; then the tile of pairs is empty again.
  void run_pairs() {
    const Params& params = *work_->params;
    const int64_t columns = pad_to_strip(tile_->count), count = pairs_.count;
    float *s = scores_.get(kTile * kTile), *ds = gradient_scores_.get(kTile * kTile);
    pack_keys(columns);
    const Rows q = rows_of(*work_->q, params.qk_size, q_copy_);
    const Rows d_o = rows_of(*work_->d_o, params.v_size, do_copy_);
    const softmax_tile::KeyValueRows rows{q.data, d_o.data, q.stride, d_o.stride, q.dtype, d_o.dtype};
    product_.set_keys(rows, 0, count, params.qk_size);
    product_.set_values(rows, 0, count, params.v_size);
    product_.pair_keys();
    product_.pair_values();
    const PairVisibility seen{pairs_, tile_->first};
    const bool whole =
        *std::min_element(pairs_.visible_end, pairs_.visible_end + count) >= tile_->first + columns;
    const Regions regions = whole ? Regions::whole(count, columns) : Regions::visible(seen, count, columns);
    for (int i = 0; i < regions.strip_count; ++i) {
      product_.scores(regions.strips[i], s);
      product_.value_scores(regions.strips[i], ds);
    }
    const auto to_gradient = whole ? gradient_tile<false> : gradient_tile<true>;
    to_gradient(seen, columns, params.scale, s, ds);
    const OperandRows q_rows{q.data, q.stride, q.dtype}, do_rows{d_o.data, d_o.stride, d_o.dtype};
    if (!whole && !(packed_keys_finite_ && q_rows.finite(count, params.qk_size) &&
                    do_rows.finite(count, params.v_size))) {
      add_seen_transposed(seen, count, columns, s, do_rows, params.v_size, dv_t_);
      add_seen_transposed(seen, count, columns, ds, q_rows, params.qk_size, dk_t_);
      add_seen_query_gradient(seen, ds);
    } else {
      product_.finish_probabilities(s, count, columns);
      product_.finish_gradients(ds, count, columns);
      for (int i = 0; i < regions.half_count; ++i) {
        if (regions.halves[i].key >= regions.halves[i].key_end) continue;
        product_.add_output(regions.halves[i], s, dv_t_);
        product_.add_query_gradient(regions.halves[i], ds, dk_t_);
      }
      add_query_gradient(regions, ds);
    }
    pairs_.run_count = pairs_.count = 0;
  }

  OperandRows key_rows() const {
    const Params& params = *work_->params;
    return {row_pointer<Element>(params.k, work_->batch, tile_->first, key_head_), params.k.token,
            params.dtype};
  }

  void pack_keys(int64_t columns) {
    if (packed_key_head_ == key_head_ && packed_value_head_ == value_head_) return;
    const Params& params = *work_->params;
    product_.set_query_gradients(row_pointer<Element>(params.k, work_->batch, tile_->first, key_head_),
                                 params.k.token,
                                 row_pointer<Element>(params.v, work_->batch, tile_->first, value_head_),
                                 params.v.token, tile_->count, params.qk_size, params.v_size, columns);
    packed_key_head_ = key_head_, packed_value_head_ = value_head_;
    packed_keys_finite_ = key_rows().finite(tile_->count, params.qk_size);
  }

  struct Rows {
    const void* data;
    int64_t stride;
    DType dtype;
  };
  // Where they lie, if the products read them there; else copies.
  Rows rows_of(const PackedHeads& x, int64_t size, simd::Scratch<Copy>& scratch) const {
    return x.dtype() == DType::kFloat32 ? rows_of<float>(x, size, scratch)
                                        : rows_of<uint16_t>(x, size, scratch);
  }
  template <class From>
  Rows rows_of(const PackedHeads& x, int64_t size, simd::Scratch<Copy>& scratch) const {
    constexpr DType kCopied = std::is_same_v<Copy, float> ? DType::kFloat32 : DType::kBFloat16;
    const int64_t stride = x.stride();
    const auto first_row = [&](const Pairs::Run& run) {
      return static_cast<const From*>(x.rows(work_->batch, run.head, run.head - work_->head)) +
             run.query * stride;
    };
    const bool readable = std::is_same_v<Copy, float> ? stride == size : stride % 2 == 0;
    if (std::is_same_v<Copy, From> && pairs_.one_run() && readable)
      return {first_row(pairs_.runs[0]), stride, kCopied};
    Copy* to = scratch.get(kTile * size);
    for (int64_t r = 0; r < pairs_.run_count; ++r) {
      const Pairs::Run& run = pairs_.runs[r];
      const From* from = first_row(run);
      for (int64_t i = 0; i < run.count; ++i) {
        if constexpr (std::is_same_v<Copy, float>) {
          vec::row_to_float(from + i * stride, size, to + (run.at + i) * size);
        } else {
          std::memcpy(to + (run.at + i) * size, from + i * stride, static_cast<size_t>(size) * sizeof(Copy));
        }
      }
    }
    return {to, size, kCopied};
  }

  // dQ += dS K: straight into the accumulator where its rows are whole vectors and equally far apart.
  void add_query_gradient(const Regions& regions, const float* ds) {
    const int64_t size = work_->params->qk_size;
    const int64_t padded = padded_size(size, std::is_same_v<Copy, uint16_t>);
    const bool direct = pairs_.one_run() && padded == size;
    float* to = direct ? query_gradient(pairs_.runs[0]) : dq_rows_.get(kTile * padded);
    const int64_t stride = direct ? work_->dq_token : padded;
    if (!direct) std::memset(to, 0, static_cast<size_t>(pairs_.count * padded) * sizeof(float));
    for (int i = 0; i < regions.strip_count; ++i) {
      const Region& strip = regions.strips[i];
      product_.add_key_gradient(strip, ds, to, stride);
    }
    for (int64_t r = 0; !direct && r < pairs_.run_count; ++r) {
      const Pairs::Run& run = pairs_.runs[r];
      for (int64_t i = 0; i < run.count; ++i)
        add_row(to + (run.at + i) * padded, size, query_gradient(run) + i * work_->dq_token);
    }
  }
  void add_seen_query_gradient(const PairVisibility& seen, const float* ds) {
    const int64_t size = work_->params->qk_size;
    float* to = dq_rows_.get(kTile * size);
    std::memset(to, 0, static_cast<size_t>(pairs_.count * size) * sizeof(float));
    add_seen_rows(seen, pairs_.count, tile_->count, ds, key_rows(), size, to, size);
    for (int64_t r = 0; r < pairs_.run_count; ++r)
      for (int64_t i = 0; i < pairs_.runs[r].count; ++i)
        add_row(to + (pairs_.runs[r].at + i) * size, size,
                query_gradient(pairs_.runs[r]) + i * work_->dq_token);
  }
  float* query_gradient(const Pairs::Run& run) const {
    return work_->dq + (run.head - work_->head) * work_->dq_head + run.query * work_->dq_token;
  }

  void store(const float* sums) {
    const Params& params = *work_->params;
    float* staging = staging_.get(kTile * std::max(params.qk_size, params.v_size));
    const auto store_heads = [&](const Strided& out, int64_t first, int64_t heads, int64_t size) {
      for (int64_t head = first; head < first + heads; ++head, sums += size * kTile) {
        const auto store_as = [&]<class Stored>(const Stored*) {
          store_transposed(sums, size, tile_->count,
                           mutable_row<Stored>(out, work_->batch, tile_->first, head), out.token, staging);
        };
        if (work_->gradients->key_dtype == DType::kFloat32)
          store_as(static_cast<const float*>(nullptr));
        else
          store_as(static_cast<const Element*>(nullptr));
      }
    };
    store_heads(work_->gradients->dk, work_->head * params.key_heads / params.heads, work_->key_heads(),
                params.qk_size);
    store_heads(work_->gradients->dv, work_->head * params.value_heads / params.heads, work_->value_heads(),
                params.v_size);
  }

  Product product_;
  Pairs pairs_;
  simd::Scratch<float> scores_, gradient_scores_, sums_, dq_rows_, staging_;
  simd::Scratch<Copy> q_copy_, do_copy_;
  // Of the call: the tile of keys and the group of heads at hand.
  const UnitWork* work_ = nullptr;
  const KeyTile* tile_ = nullptr;
  int64_t head_ = 0, key_head_ = 0, value_head_ = 0, packed_key_head_ = -1, packed_value_head_ = -1;
  bool packed_keys_finite_ = true;
  float *dk_t_ = nullptr, *dv_t_ = nullptr;
};

}  // namespace longreach::block::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // LONGREACH_LAYERS_OPS_BLOCK_ATTENTION_BACKWARD_INL_H_
