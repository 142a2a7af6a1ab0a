// Backward pass of block attention on CPUs (FlashAttention-2, arXiv 2307.08691, Algorithm 2, by key blocks).
//
//   delta_i = do_i . o_i - dlse_i
//   P = exp(scale q k - lse)    dV = P^T dO    dS = scale P (dO V^T - delta)    dQ = dS K    dK = dS^T Q
//
// Five products a pair of tiles, once each: backward-inl.h. Work: a unit is a batch entry and the smallest
// group of query heads that owns its key and value heads; it walks over its tiles of keys in order: no
// atomics, fixed order. Where there are few units, slices of queries are dealt out to `chunks` tasks; each
// has rows of dQ for itself and a part of dK and dV, and the parts are added in order. Shapes and lists alone
// decide on that, so that bits do not depend on threads.
#include <algorithm>
#include <memory>
#include <numeric>

#include "layers/ops/block_attention/cpu/plan.h"
#include "layers/ops/cpu/parallel.h"
#include "layers/ops/cpu/prefetch.h"
#include "layers/ops/cpu/scratch.h"
#include "layers/ops/cpu/spares.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/block_attention/cpu/backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "layers/ops/block_attention/cpu/backward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::block::HWY_NAMESPACE {
// Calls f(the calling thread's BackwardUnit of the work's product).
template <class F>
void with_unit(const Params& params, F&& f) {
  with_product(params.dtype, params.bf16_product, [&]<class Product>() {
    thread_local BackwardUnit<Product> unit;
    const typename Product::Session session;
    f(unit);
  });
}

void backward_unit(const UnitWork& work) {
  with_unit(*work.params, [&](auto& unit) { unit.run(work); });
}

// dK and dV of tile `tile`: the parts of all chunks in order, `stride` floats apart, summed in the first.
void store_parts(const UnitWork& work, int64_t tile, int64_t stride) {
  const int64_t floats = part_floats(*work.params, work.key_heads(), work.value_heads());
  for (int64_t c = 1; c < work.chunks; ++c) add_row(work.parts + c * stride, floats, work.parts);
  with_unit(*work.params, [&](auto& unit) { unit.store(work, work.tiles[tile], work.parts); });
}

// delta of the queries [first, last) of one head.
template <class Element>
void delta_rows_of(const Params& params, const Gradients& gradients, int64_t batch, int64_t head,
                   int64_t first, int64_t last, float* delta) {
  const int64_t size = params.v_size, bytes = size * static_cast<int64_t>(sizeof(Element));
  for (int64_t i = first; i < last; ++i) {
    if (const int64_t next = i + simd::kRowsAhead; next < last) {
      simd::prefetch_row(row_pointer<Element>(params.o, batch, next, head), bytes);
      simd::prefetch_row(row_pointer<Element>(gradients.d_o, batch, next, head), bytes);
    }
    delta[i] = dot(row_pointer<Element>(params.o, batch, i, head),
                   row_pointer<Element>(gradients.d_o, batch, i, head), size);
    if (gradients.d_lse != nullptr)
      delta[i] -= gradients.d_lse[(batch * params.heads + head) * params.queries + i];
  }
}

void delta_rows(const Params& params, const Gradients& gradients, int64_t batch, int64_t head, int64_t first,
                int64_t last, float* delta) {
  const auto rows = params.dtype == DType::kFloat32 ? delta_rows_of<float> : delta_rows_of<uint16_t>;
  rows(params, gradients, batch, head, first, last, delta);
}

}  // namespace longreach::block::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longreach::block {
HWY_EXPORT(backward_unit);
HWY_EXPORT(store_parts);
HWY_EXPORT(delta_rows);
HWY_EXPORT(store_rows);

namespace {

// Tasks to cut the backward pass into when there are few units, and the room for parts of dK and dV that this
// may take.
constexpr int64_t kTasks = 8;
constexpr int64_t kPartBytes = int64_t{8} << 20;

// Walks over units and chunks; see the top of this file.
class Backward {
 public:
  Backward(const Params& params, const Gradients& gradients)
      : params_(params),
        gradients_(gradients),
        tiles_(key_tiles(params)),
        head_groups_(std::gcd(params.key_heads, params.value_heads)),
        units_(params.batches * head_groups_),
        lists_(static_cast<size_t>(params.list_batches * params.list_heads)),
        delta_(params.batches * params.heads * params.queries) {}

  void run() {
    parallel_tiles(static_cast<int64_t>(lists_.size()), [&](int64_t i) {
      lists_[static_cast<size_t>(i)] = transposed(params_, i / params_.list_heads, i % params_.list_heads);
    });
    chunks_ = chunk_count();
    fill_delta();
    chunks_ == 1 ? run_units() : run_chunks();
  }

 private:
  // How many tiles of queries read a tile of keys.
  int64_t mean_readers() const {
    int64_t entries = 0;
    for (const TransposedList& list : lists_) entries += list.start.back();
    const int64_t tiles = static_cast<int64_t>(lists_.size() * tiles_.size());
    return entries * params_.query_block * heads_per_group(params_) / (kTile * std::max<int64_t>(tiles, 1));
  }
  // A chunk packs each tile of keys again: some tile of queries must be there for it.
  int64_t chunk_count() const {
    return std::clamp<int64_t>(ceil_div(kTasks, std::max<int64_t>(units_, 1)), 1,
                               std::max<int64_t>(mean_readers(), 1));
  }

  void fill_delta() const {
    constexpr int64_t kRows = 256;
    const int64_t pieces = ceil_div(params_.queries, kRows);
    parallel_tiles(params_.batches * params_.heads * pieces, [&](int64_t task) {
      const int64_t row = task / pieces, first = task % pieces * kRows,
                    last = std::min(first + kRows, params_.queries);
      HWY_DYNAMIC_DISPATCH(delta_rows)
      (params_, gradients_, row / params_.heads, row % params_.heads, first, last,
       delta_.data() + row * params_.queries);
    });
  }

  int64_t heads() const { return params_.heads / head_groups_; }  // of a unit
  int64_t padded() const { return ceil_div(params_.qk_size, 16) * 16; }

  PackedHeads packed(const Strided& input, int64_t size, int64_t reuse) const {
    return {input, params_.queries, size, params_.dtype, params_.bf16_product, reuse};
  }

  UnitWork work(int64_t unit, int64_t first, int64_t last) const {
    const int64_t batch = unit / head_groups_, list_batch = params_.list_batches > 1 ? batch : 0;
    return {.params = &params_,
            .gradients = &gradients_,
            .lists = lists_.data() + list_batch * params_.list_heads,
            .tiles = tiles_.data(),
            .first = first,
            .last = last,
            .batch = batch,
            .head = unit % head_groups_ * heads(),
            .heads = heads(),
            .group = heads_per_group(params_),
            .chunk = 0,
            .chunks = chunks_,
            .delta = delta_.data(),
            .q = nullptr,
            .d_o = nullptr,
            .dq = nullptr,
            .dq_token = padded(),
            .dq_head = params_.queries * padded(),
            .parts = nullptr};
  }

  void clear_query_gradients(const UnitWork& unit, int64_t first, int64_t last) const {
    for (int64_t head = 0; head < unit.heads; ++head)
      for (int64_t i = first; i < last; ++i)
        std::fill_n(unit.dq + head * unit.dq_head + i * unit.dq_token, params_.qk_size, 0.0f);
  }
  void store_query_gradients(const UnitWork& unit) const {
    const Strided& out = gradients_.dq;
    const int64_t width = params_.dtype == DType::kFloat32 ? 4 : 2;
    for (int64_t head = 0; head < unit.heads; ++head) HWY_DYNAMIC_DISPATCH(store_rows)
    (unit.dq + head * unit.dq_head, unit.dq_token, params_.queries, params_.qk_size, params_.dtype,
     static_cast<char*>(out.data) + (unit.batch * out.batch + (unit.head + head) * out.head) * width,
     out.token);
  }

  // Copies of what the queries of a unit bring and the accumulator of dQ: rows of a head close together. As
  // many as there are threads at work.
  struct Storage {
    PackedHeads q, d_o;
    simd::Scratch<float> dq;
  };
  Storage storage() const {
    const int64_t reuse = mean_readers();
    Storage storage{
        packed(params_.q, params_.qk_size, reuse), packed(gradients_.d_o, params_.v_size, reuse), {}};
    storage.q.open(heads());
    storage.d_o.open(heads());
    storage.dq.get(heads() * params_.queries * padded());
    return storage;
  }

  void run_units() {
    Spares<Storage> spares;
    parallel_tiles(units_, [&](int64_t index) {
      auto storage = spares.take([&] { return this->storage(); });
      UnitWork unit = work(index, 0, static_cast<int64_t>(tiles_.size()));
      unit.q = &storage->q, unit.d_o = &storage->d_o, unit.dq = storage->dq.data();
      for (int64_t head = 0; head < unit.heads; ++head) {
        storage->q.fill(unit.batch, unit.head + head, head);
        storage->d_o.fill(unit.batch, unit.head + head, head);
      }
      clear_query_gradients(unit, 0, params_.queries);
      HWY_DYNAMIC_DISPATCH(backward_unit)(unit);
      store_query_gradients(unit);
      spares.give_back(std::move(storage));
    });
  }

  // dQ of all units adds up in the output where that is fp32.
  UnitWork shared_work(int64_t unit, int64_t first, int64_t last, const Storage& storage) const {
    UnitWork mine = work(unit, first, last);
    mine.q = &storage.q, mine.d_o = &storage.d_o;
    mine.dq = storage.dq.data() + (mine.batch * params_.heads + mine.head) * mine.dq_head;
    if (params_.dtype != DType::kFloat32) return mine;
    const Strided& out = gradients_.dq;
    mine.dq = static_cast<float*>(out.data) + mine.batch * out.batch + mine.head * out.head;
    mine.dq_token = out.token, mine.dq_head = out.head;
    return mine;
  }

  void run_chunks() {
    Storage storage{packed(params_.q, params_.qk_size, 0), packed(gradients_.d_o, params_.v_size, 0), {}};
    if (params_.dtype != DType::kFloat32)
      storage.dq.get(params_.batches * params_.heads * params_.queries * padded());
    const auto count = static_cast<int64_t>(tiles_.size());
    const int64_t pieces = ceil_div(params_.queries, kTile);
    parallel_tiles(units_ * pieces, [&](int64_t task) {
      const int64_t first = task % pieces * kTile;
      clear_query_gradients(shared_work(task / pieces, 0, count, storage), first,
                            std::min(first + kTile, params_.queries));
    });
    const int64_t floats =
        part_floats(params_, params_.key_heads / head_groups_, params_.value_heads / head_groups_);
    const int64_t all = static_cast<int64_t>(sizeof(float)) * floats * units_ * chunks_;
    const int64_t room = std::min(std::max<int64_t>(kPartBytes / all, 1), count);
    const int64_t part = room * floats;  // of one chunk of one unit
    const simd::Scratch<float> parts(units_ * chunks_ * part);
    for (int64_t first = 0; first < count; first += room) {
      const int64_t last = std::min(first + room, count);
      parallel_tiles(units_ * chunks_, [&](int64_t task) {
        UnitWork mine = shared_work(task / chunks_, first, last, storage);
        mine.chunk = task % chunks_;
        mine.parts = parts.data() + task * part;
        HWY_DYNAMIC_DISPATCH(backward_unit)(mine);
      });
      parallel_tiles(units_ * (last - first), [&](int64_t task) {
        const int64_t unit = task / (last - first), tile = task % (last - first);
        UnitWork mine = shared_work(unit, first, last, storage);
        mine.parts = parts.data() + unit * chunks_ * part + tile * floats;
        HWY_DYNAMIC_DISPATCH(store_parts)(mine, first + tile, part);
      });
    }
    if (params_.dtype == DType::kFloat32) return;
    parallel_tiles(units_,
                   [&](int64_t unit) { store_query_gradients(shared_work(unit, 0, count, storage)); });
  }

  const Params& params_;
  const Gradients& gradients_;
  std::vector<KeyTile> tiles_;
  int64_t head_groups_, units_, chunks_ = 1;
  std::vector<TransposedList> lists_;
  simd::Scratch<float> delta_;
};

}  // namespace

void backward_cpu(const Params& params, const Gradients& gradients) { Backward(params, gradients).run(); }

}  // namespace longreach::block
#endif
