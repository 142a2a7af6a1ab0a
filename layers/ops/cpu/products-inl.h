// The products of softmax attention on one pair of tiles (64 queries x 64 keys), for every Highway target:
// what its operators share, forward and backward.
//
// Scores are kept transposed, S^T [keys, queries]: queries lie along the vector lanes, so that softmax
// statistics and row intervals are vectors and need no horizontal sums, and K and V are read where they lie,
// as the operand that is taken element by element: only the tile of queries is ever packed. Nothing but names
// tells queries from keys: a kernel that keeps a tile of keys and walks over queries swaps the parts.
#if defined(LONGREACH_LAYERS_OPS_SOFTMAX_TILE_PRODUCTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGREACH_LAYERS_OPS_SOFTMAX_TILE_PRODUCTS_INL_H_
#undef LONGREACH_LAYERS_OPS_SOFTMAX_TILE_PRODUCTS_INL_H_
#else
#define LONGREACH_LAYERS_OPS_SOFTMAX_TILE_PRODUCTS_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "layers/ops/cpu/amx.h"
#include "layers/ops/cpu/bf16_dot.h"
#include "layers/ops/cpu/gemm-inl.h"
#include "layers/ops/cpu/pack-inl.h"
#include "layers/ops/cpu/packed.h"
#include "layers/ops/cpu/scratch.h"
#include "layers/ops/cpu/vector_math-inl.h"
#include "layers/ops/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::softmax_tile::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace vec = simd::HWY_NAMESPACE;
using vec::FloatTag;
using vec::kLanes;
using Floats = hn::Vec<FloatTag>;

inline constexpr int64_t kStrip =
    16;  // granularity of skipped work inside a tile; a multiple of every vector width
inline constexpr float kLog2e = 1.44269504f, kLn2 = 0.693147181f;

HWY_INLINE int64_t pad_to_strip(int64_t n) { return (n + kStrip - 1) / kStrip * kStrip; }

// A block of a tile of S^T: keys [key, key_end) x columns (queries) [column, column_end).
struct Region {
  int64_t key, key_end, column, column_end;
};

// The parts of a tile that are worth computing: by strips of keys, and by halves of the columns. Entries
// outside are masked. One region each when the tile is seen whole.
struct Regions {
  Region strips[kTile / kStrip], halves[2];
  int strip_count = 0, half_count = 0;

  static Regions whole(int64_t keys, int64_t columns) {
    Regions regions;
    regions.strips[0] = regions.halves[0] = {0, keys, 0, columns};
    regions.strip_count = regions.half_count = 1;
    return regions;
  }

  // seen.any(column, from, to): does one of the kStrip columns from `column` on see one of the rows [from,
  // to)?
  template <class Visibility>
  static Regions visible(const Visibility& seen, int64_t keys, int64_t columns) {
    Regions regions;
    for (int64_t c = 0; c < columns; c += kTile / 2)
      regions.halves[regions.half_count++] = {keys, 0, c, std::min(c + kTile / 2, columns)};
    for (int64_t s = 0; s < keys; s += kStrip) {
      const int64_t s_end = std::min(s + kStrip, keys);
      Region strip{s, s_end, columns, 0};
      for (int64_t c = 0; c < columns; c += kStrip) {
        if (!seen.any(c, s, s_end)) continue;
        strip.column = std::min(strip.column, c);
        strip.column_end = c + kStrip;
        Region& half = regions.halves[c / (kTile / 2)];
        half.key = std::min(half.key, s);
        half.key_end = s_end;
      }
      if (strip.column < strip.column_end) regions.strips[regions.strip_count++] = strip;
    }
    return regions;
  }
};

// What a task holds while it multiplies: nothing, or the tile registers.
struct NoSession {
  NoSession() {}  // not trivial: a local one counts as used
};

// Products on fp32 tiles. Tiles of bf16, and fp32 tiles with gaps between their rows, are copied as they are
// read.
template <class Element>
class FloatProduct {
 public:
  using Input = Element;
  using Session = NoSession;
  using Copy = float;  // of copied rows of keys and values

  // The operand of scores(): Q^T, zero in columns past `count`.
  void set_queries(const Element* q, int64_t stride, int64_t count, int64_t size, int64_t columns) {
    transpose_in(q, stride, count, size, columns, q_t_);
    qk_size_ = size;
  }
  // The operands of the backward products: dO^T, and Q and dO by rows.
  void set_query_gradients(const Element* q, int64_t q_stride, const Element* d_o, int64_t o_stride,
                           int64_t count, int64_t qk_size, int64_t v_size, int64_t columns) {
    set_queries(q, q_stride, count, qk_size, columns);
    transpose_in(d_o, o_stride, count, v_size, columns, do_t_);
    q_rows_ = rows_as_b(q, q_stride, count, qk_size, q_copy_);
    do_rows_ = rows_as_b(d_o, o_stride, count, v_size, do_copy_);
    count_ = count;
  }
  // Keys or values from row `first` on.
  void set_keys(const KeyValueRows& rows, int64_t first, int64_t count, int64_t size) {
    k_ = key_rows(rows.k, rows.k_dtype, rows.k_row, first, count, size, k_copy_);
  }
  void set_values(const KeyValueRows& rows, int64_t first, int64_t count, int64_t size) {
    v_ = key_rows(rows.v, rows.v_dtype, rows.v_row, first, count, size, v_copy_);
    v_size_ = size;
  }
  void pair_keys() {}
  void pair_values() {}

  // S^T = K Q^T and dP^T = V dO^T over a region.
  void scores(const Region& r, float* s) const { product_into(k_, q_t_.data(), qk_size_, r, s); }
  void value_scores(const Region& r, float* s) const { product_into(v_, do_t_.data(), v_size_, r, s); }

  // P^T or dS^T complete in `keys` rows: gets ready what the products below need; of P^T what add_output
  // needs, or what add_value_gradient does.
  void finish_probabilities(float*, int64_t, int64_t) {}
  void finish_probability_rows(const float*, int64_t) {}
  void finish_gradients(float*, int64_t, int64_t) {}

  // O^T += V^T P^T; dQ^T += K^T dS^T.
  void add_output(const Region& r, const float* p, float* o_t) const {
    add_transposed(v_, v_size_, r, p, o_t);
  }
  void add_query_gradient(const Region& r, const float* ds, float* dq_t) const {
    add_transposed(k_, qk_size_, r, ds, dq_t);
  }
  // dV += P^T dO; dK += dS^T Q; rows of the accumulator count from the tile's first key.
  void add_value_gradient(const Region& r, const float* p, float* dv, int64_t ld) const {
    add_rows(p, do_rows_, v_size_, r, dv, ld);
  }
  void add_key_gradient(const Region& r, const float* ds, float* dk, int64_t ld) const {
    add_rows(ds, q_rows_, qk_size_, r, dk, ld);
  }

 private:
  struct Rows {
    const float* data;
    int64_t stride;
  };

  void transpose_in(const Element* x, int64_t stride, int64_t count, int64_t size, int64_t columns,
                    simd::Scratch<float>& out) {
    float* to = out.get(size * kTile);
    const Rows rows = rows_as_a(x, stride, count, size, staging_);
    vec::transpose(rows.data, rows.stride, count, size, to, kTile);
    if (count == columns) return;
    for (int64_t c = 0; c < size; ++c) std::fill(to + c * kTile + count, to + c * kTile + columns, 0.0f);
  }

  static Rows key_rows(const void* x, DType dtype, int64_t stride, int64_t first, int64_t count, int64_t size,
                       simd::Scratch<float>& copy) {
    return dtype == DType::kFloat32
               ? rows_as_a(static_cast<const float*>(x) + first * stride, stride, count, size, copy)
               : rows_as_a(static_cast<const uint16_t*>(x) + first * stride, stride, count, size, copy);
  }

  template <class From>
  static Rows rows_as_a(const From* x, int64_t stride, int64_t count, int64_t size,
                        simd::Scratch<float>& copy) {
    if constexpr (std::is_same_v<From, float>) {
      if (stride == size) return {x, stride};
    }
    float* to = copy.get(kTile * size);
    for (int64_t i = 0; i < count; ++i) vec::row_to_float(x + i * stride, size, to + i * size);
    return {to, size};
  }

  // B operands are read by whole vectors.
  static Rows rows_as_b(const Element* x, int64_t stride, int64_t count, int64_t size,
                        simd::Scratch<float>& copy) {
    if constexpr (std::is_same_v<Element, float>) {
      if (size % kLanes == 0 && stride == size) return {x, stride};
    }
    const int64_t padded = vec::pad_to_lanes(size);
    vec::pad_tile(x, stride, count, size, copy.get(kTile * padded), padded, count, padded);
    return {copy.data(), padded};
  }

  static void product_into(const Rows& a, const float* b, int64_t size, const Region& r, float* s) {
    vec::gemm(r.key_end - r.key, r.column_end - r.column, size, {a.data + r.key * a.stride, a.stride, 1},
              b + r.column, kTile, s + r.key * kTile + r.column, kTile, false);
  }
  static void add_transposed(const Rows& a, int64_t size, const Region& r, const float* p, float* out) {
    vec::gemm(size, r.column_end - r.column, r.key_end - r.key, {a.data + r.key * a.stride, 1, a.stride},
              p + r.key * kTile + r.column, kTile, out + r.column, kTile, true);
  }
  void add_rows(const float* p, const Rows& b, int64_t size, const Region& r, float* out, int64_t ld) const {
    vec::gemm(r.key_end - r.key, vec::pad_to_lanes(size), std::min(r.column_end, count_) - r.column,
              {p + r.key * kTile + r.column, kTile, 1}, b.data + r.column * b.stride, b.stride,
              out + r.key * ld, ld, true);
  }

  simd::Scratch<float> q_t_, do_t_, q_copy_, do_copy_, k_copy_, v_copy_, staging_;
  Rows q_rows_{}, do_rows_{}, k_{}, v_{};
  int64_t qk_size_ = 0, v_size_ = 0, count_ = 0;
};

// Products of bf16 pairs with fp32 sums, on vectors (vdpbf16ps) or on tile registers (AMX). P and dS are
// rounded to bf16 before their products.
template <bool kTileRegisters>
class PairProduct {
 public:
  using Input = uint16_t;
  using Session = std::conditional_t<kTileRegisters, simd::TileRegisters, NoSession>;
  using Copy = uint16_t;

  void set_queries(const uint16_t* q, int64_t stride, int64_t count, int64_t size, int64_t columns) {
    simd::pair_columns(q, stride, count, size, q_t_.get(even(size) * kTile), kTile, columns);
    qk_size_ = size;
  }
  void set_query_gradients(const uint16_t* q, int64_t q_stride, const uint16_t* d_o, int64_t o_stride,
                           int64_t count, int64_t qk_size, int64_t v_size, int64_t columns) {
    set_queries(q, q_stride, count, qk_size, columns);
    simd::pair_columns(d_o, o_stride, count, v_size, do_t_.get(even(v_size) * kTile), kTile, columns);
    q_rows_.set(q, q_stride, count, qk_size, columns);
    do_rows_.set(d_o, o_stride, count, v_size, columns);
  }
  void set_keys(const KeyValueRows& rows, int64_t first, int64_t count, int64_t size) {
    keys_ = {static_cast<const uint16_t*>(rows.k) + first * rows.k_row, rows.k_row, count, size};
    k_ = rows_as_a(keys_.data, keys_.stride, count, size, k_copy_);
  }
  void set_values(const KeyValueRows& rows, int64_t first, int64_t count, int64_t size) {
    values_ = {static_cast<const uint16_t*>(rows.v) + first * rows.v_row, rows.v_row, count, size};
    v_ = rows_as_a(values_.data, values_.stride, count, size, v_copy_);
  }
  // Keys and values as pairs of rows, for the products that sum over keys.
  void pair_keys() { k_over_keys_.set(keys_); }
  void pair_values() { v_over_keys_.set(values_); }

  void scores(const Region& r, float* s) const { product_into(k_, q_t_.data(), qk_size_, r, s); }
  void value_scores(const Region& r, float* s) const { product_into(v_, do_t_.data(), values_.size, r, s); }

  void finish_probabilities(float* p, int64_t keys, int64_t columns) { pair(p, keys, columns, p_pairs_); }
  void finish_probability_rows(const float* p, int64_t keys) { round(p, keys, p_rows_); }
  void finish_gradients(float* ds, int64_t keys, int64_t columns) {
    pair(ds, keys, columns, ds_pairs_);
    round(ds, keys, ds_rows_);
  }

  void add_output(const Region& r, const float*, float* o_t) const {
    add_transposed(v_over_keys_, values_.size, r, p_pairs_.data(), o_t);
  }
  void add_query_gradient(const Region& r, const float*, float* dq_t) const {
    add_transposed(k_over_keys_, qk_size_, r, ds_pairs_.data(), dq_t);
  }
  void add_value_gradient(const Region& r, const float*, float* dv, int64_t ld) const {
    add_rows(p_rows_.data(), do_rows_, r, dv, ld);
  }
  void add_key_gradient(const Region& r, const float*, float* dk, int64_t ld) const {
    add_rows(ds_rows_.data(), q_rows_, r, dk, ld);
  }

 private:
  struct Rows {
    const uint16_t* data;
    int64_t stride, count, size;
  };
  // Rows two by two: [rows/2][padded size][2].
  struct Pairs {
    simd::Scratch<uint16_t> data;
    int64_t padded = 0;
    void set(const uint16_t* x, int64_t stride, int64_t count, int64_t size, int64_t padded_count) {
      padded = pad_to_strip(size);
      simd::pair_rows(x, stride, count, size, data.get(padded_count * padded), padded, padded_count, padded);
    }
  };

  static int64_t even(int64_t n) { return n + n % 2; }

  // The operand A of a product over keys: element (e, key) of a tile of keys or values. Pairs of keys lie
  // side by side; tile registers want them along rows of e.
  struct OverKeys {
    Pairs pairs;
    simd::Scratch<float> transposed;  // [size][kTile / 2] pairs of bf16
    void set(const Rows& rows) {
      pairs.set(rows.data, rows.stride, rows.count, rows.size, even(rows.count));
      if constexpr (kTileRegisters)
        vec::transpose(reinterpret_cast<const float*>(pairs.data.data()), pairs.padded, even(rows.count) / 2,
                       rows.size, transposed.get(rows.size * kTile / 2), kTile / 2);
    }
  };

  static void multiply(int64_t m, int64_t n, int64_t k, const simd::Bf16Operand& a, const uint16_t* b,
                       int64_t ldb, float* c, int64_t ldc, bool accumulate) {
    if constexpr (kTileRegisters)
      simd::gemm_bf16_amx(m, n, k, a.data, a.row, b, ldb, c, ldc, accumulate);
    else
      simd::gemm_bf16_dot(m, n, k, a, b, ldb, c, ldc, accumulate);
  }

  static simd::Bf16Operand rows_as_a(const uint16_t* x, int64_t stride, int64_t count, int64_t size,
                                     simd::Scratch<uint16_t>& copy) {
    if (size % 2 == 0) return {x, stride, 2};
    uint16_t* to = copy.get(kTile * (size + 1));
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(to + i * (size + 1), x + i * stride, static_cast<size_t>(size) * 2);
      to[i * (size + 1) + size] = 0;
    }
    return {to, size + 1, 2};
  }

  static void pair(float* p, int64_t keys, int64_t columns, simd::Scratch<uint16_t>& out) {
    if (keys % 2 != 0) std::fill(p + keys * kTile, p + keys * kTile + columns, 0.0f);
    simd::pair_rows_bf16_dot(p, kTile, even(keys), columns, out.get(kTile * kTile), kTile);
  }
  static void round(const float* p, int64_t keys, simd::Scratch<uint16_t>& out) {
    simd::round_rows_bf16_dot(p, kTile, keys, kTile, out.get(kTile * kTile), kTile);
  }

  static void product_into(const simd::Bf16Operand& a, const uint16_t* b, int64_t size, const Region& r,
                           float* s) {
    multiply(r.key_end - r.key, r.column_end - r.column, even(size), {a.data + r.key * a.row, a.row, 2},
             b + 2 * r.column, kTile, s + r.key * kTile + r.column, kTile, false);
  }
  static void add_transposed(const OverKeys& a, int64_t size, const Region& r, const uint16_t* p,
                             float* out) {
    const simd::Bf16Operand operand =
        kTileRegisters
            ? simd::Bf16Operand{reinterpret_cast<const uint16_t*>(a.transposed.data()) + r.key, kTile, 2}
            : simd::Bf16Operand{a.pairs.data.data() + r.key * a.pairs.padded, 2, 2 * a.pairs.padded};
    multiply(size, r.column_end - r.column, even(r.key_end - r.key), operand,
             p + r.key * kTile + 2 * r.column, kTile, out + r.column, kTile, true);
  }
  static void add_rows(const uint16_t* p, const Pairs& b, const Region& r, float* out, int64_t ld) {
    multiply(r.key_end - r.key, b.padded, r.column_end - r.column, {p + r.key * kTile + r.column, kTile, 2},
             b.data.data() + r.column * b.padded, b.padded, out + r.key * ld, ld, true);
  }

  simd::Scratch<uint16_t> q_t_, do_t_, k_copy_, v_copy_, p_pairs_, p_rows_, ds_pairs_, ds_rows_;
  Pairs q_rows_, do_rows_;
  OverKeys k_over_keys_, v_over_keys_;
  simd::Bf16Operand k_{}, v_{};
  Rows keys_{}, values_{};
  int64_t qk_size_ = 0;
};

// f.template operator()<Product>() with the product that inputs of `dtype` take.
template <class F>
HWY_INLINE void with_product(DType dtype, Bf16Product bf16, const F& f) {
  if (dtype == DType::kFloat32) return f.template operator()<FloatProduct<float>>();
  if (bf16 == Bf16Product::kTiles) return f.template operator()<PairProduct<true>>();
  if (bf16 == Bf16Product::kDot) return f.template operator()<PairProduct<false>>();
  f.template operator()<FloatProduct<uint16_t>>();
}

}  // namespace longreach::softmax_tile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // LONGREACH_LAYERS_OPS_SOFTMAX_TILE_PRODUCTS_INL_H_
