// What the forward and backward kernels of the recurrence share, for every Highway target: tiles in fp32
// scratch, and the products of decays inside a chunk. Include after hwy/highway.h in a file that
// foreach_target compiles once per target.
//
// Numerics of the decays. Only exponents <= 0 are formed (for log decays <= 0), never a quotient of products.
// Sums of log decays run in float64; a difference of two sums is taken from float pairs (high, low), so that
// decays of 1e-6 next to decays of 60 keep full fp32 accuracy. A step below kForget multiplies by exactly 0
// in any precision: it restarts the sum, and products across it are set to 0 by index, since differences of
// -inf would be NaN.
#if defined(LONGREACH_LAYERS_OPS_RECURRENCE_CHUNK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGREACH_LAYERS_OPS_RECURRENCE_CHUNK_INL_H_
#undef LONGREACH_LAYERS_OPS_RECURRENCE_CHUNK_INL_H_
#else
#define LONGREACH_LAYERS_OPS_RECURRENCE_CHUNK_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "layers/ops/cpu/gemm-inl.h"
#include "layers/ops/cpu/pack-inl.h"
#include "layers/ops/cpu/scratch.h"
#include "layers/ops/cpu/vector_math-inl.h"
#include "layers/ops/recurrence/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::recurrence_kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace kernel = simd::HWY_NAMESPACE;
using kernel::FloatTag;
using kernel::kLanes;

inline constexpr int64_t kStrip =
    16;  // rows of a strip of the lower triangle; a multiple of every vector width
inline constexpr double kForget = -1000;  // exp of less is 0 in float64 too
inline constexpr int64_t kLongestChunk = 128;

inline int64_t pad(int64_t n) { return (n + kStrip - 1) / kStrip * kStrip; }

// f(element) with an element of the dtype's storage type.
template <class F>
void with_element(DType dtype, const F& f) {
  dtype == DType::kFloat32 ? f(float{}) : f(uint16_t{});
}

template <class T>
const T* at(const Strided& x, int64_t batch, int64_t token, int64_t head) {
  return static_cast<const T*>(x.data) + batch * x.batch + token * x.token + head * x.head;
}
template <class T>
T* mutable_at(const Strided& x, int64_t batch, int64_t token, int64_t head) {
  return static_cast<T*>(x.data) + batch * x.batch + token * x.token + head * x.head;
}

// to = factor * from over n floats, n a multiple of kStrip.
HWY_INLINE void scale_row(const float* from, float factor, int64_t n, float* to) {
  const FloatTag d;
  const auto f = hn::Set(d, factor);
  for (int64_t i = 0; i < n; i += kLanes) hn::StoreU(hn::Mul(f, hn::LoadU(d, from + i)), d, to + i);
}
HWY_INLINE void add_row(const float* from, int64_t n, float* to) {
  const FloatTag d;
  for (int64_t i = 0; i < n; i += kLanes)
    hn::StoreU(hn::Add(hn::LoadU(d, to + i), hn::LoadU(d, from + i)), d, to + i);
}
HWY_INLINE void multiply_row(const float* from, int64_t n, float* to) {
  const FloatTag d;
  for (int64_t i = 0; i < n; i += kLanes)
    hn::StoreU(hn::Mul(hn::LoadU(d, to + i), hn::LoadU(d, from + i)), d, to + i);
}
// to += factor * from.
HWY_INLINE void add_scaled_row(const float* from, float factor, int64_t n, float* to) {
  const FloatTag d;
  const auto f = hn::Set(d, factor);
  for (int64_t i = 0; i < n; i += kLanes)
    hn::StoreU(hn::MulAdd(f, hn::LoadU(d, from + i), hn::LoadU(d, to + i)), d, to + i);
}
HWY_INLINE float dot_row(const float* a, const float* b, int64_t n) {
  const FloatTag d;
  auto sum = hn::Zero(d);
  for (int64_t i = 0; i < n; i += kLanes) sum = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum);
  return hn::GetLane(hn::SumOfLanes(d, sum));
}
// Rows r of a tile times factor[r]; `to` may be `from`.
HWY_INLINE void scale_rows(const float* from, const float* factors, int64_t rows, int64_t width, float* to) {
  for (int64_t r = 0; r < rows; ++r) scale_row(from + r * width, factors[r], width, to + r * width);
}

// Writes rows x columns of a tile of leading dimension `width`.
template <class T>
HWY_INLINE void store_tile(const float* from, int64_t width, int64_t rows, int64_t columns, T* to,
                           int64_t stride) {
  for (int64_t r = 0; r < rows; ++r) kernel::row_from_float(from + r * width, columns, to + r * stride);
}

// Pieces of one allocation, each on a cache line of its own.
class Arena {
 public:
  // First pass with no memory counts; the second hands out.
  explicit Arena(float* data) : data_(data) {}
  float* take(int64_t count) {
    float* piece = data_ == nullptr ? nullptr : data_ + used_;
    used_ += pad(count);
    return piece;
  }
  int64_t used() const { return used_; }

 private:
  float* data_;
  int64_t used_ = 0;
};

// Products of decays in one chunk of m tokens, of one head.
struct ChunkDecay {
  const float* before = nullptr;  // [m]: of tokens 0..r: what the incoming state has decayed to at token r
  // [m]: of tokens j+1..m-1: what the contribution of j has decayed to at the end
  const float* after = nullptr;
  const float* pair = nullptr;  // [C, C]: row r, column j: of tokens j+1..r for j <= r, 0 above the diagonal
  float total = 1;              // of all tokens
};

class DecayTable {
 public:
  void carve(Arena& arena, const Shape& shape) {
    chunk_ = shape.chunk;
    pair_ = arena.take(chunk_ * chunk_);
    before_ = arena.take(kLongestChunk + 1);
    after_ = arena.take(kLongestChunk + 1);
    high_ = arena.take(kLongestChunk);
    low_ = arena.take(kLongestChunk);
  }

  void begin_head(const Shape& shape, int64_t head) {
    shape_ = &shape, head_ = head;
    if (shape.decay == Decay::kToken) return;
    const double step = shape.decay == Decay::kHead ? shape.log_decay[head * shape.decay_head] : 0.0;
    // before_[i] = a^i and after_[C - i] = a^i; a^0 = 1 even where a = 0.
    for (int64_t i = 0; i <= chunk_; ++i)
      before_[i] = after_[chunk_ - i] =
          i == 0 ? 1.0f : static_cast<float>(std::exp(step * static_cast<double>(i)));
    std::memset(pair_, 0, static_cast<size_t>(chunk_ * chunk_) * sizeof(float));
    for (int64_t r = 0; r < chunk_; ++r)
      std::memcpy(pair_ + r * chunk_, after_ + chunk_ - r, static_cast<size_t>(r + 1) * sizeof(float));
  }

  // Tokens [token, token + m) of a row. Rows of `pair` from m up to the next multiple of kStrip are finite.
  ChunkDecay chunk(int64_t row, int64_t token, int64_t m, bool pairs) {
    if (shape_->decay != Decay::kToken) return {before_ + 1, after_ + chunk_ - m + 1, pair_, before_[m]};
    const float* log_decay = shape_->log_decay + row * shape_->decay_row + token * shape_->decay_token +
                             head_ * shape_->decay_head;
    double sum = 0;
    int64_t reset = -1;  // the last token that forgets everything before it
    for (int64_t r = 0; r < m; ++r) {
      const double step = log_decay[r * shape_->decay_token];
      if (step < kForget) {
        sum = 0, reset = r;
      } else {
        sum += step;
      }
      high_[r] = static_cast<float>(sum), low_[r] = static_cast<float>(sum - high_[r]);
      reset_[r] = reset;
      before_[r] = reset >= 0 ? 0.0f : static_cast<float>(std::exp(sum));
    }
    for (int64_t j = 0; j < m; ++j) {
      const double rest = sum - (static_cast<double>(high_[j]) + low_[j]);
      after_[j] = j < reset ? 0.0f : static_cast<float>(std::exp(rest));
    }
    if (pairs) fill_pairs(m);
    return {before_, after_, pair_, before_[m - 1]};
  }

 private:
  void fill_pairs(int64_t m) {
    const FloatTag d;
    for (int64_t r = 0; r < pad(m); ++r) {
      float* row = pair_ + r * chunk_;
      const int64_t width = r / kStrip * kStrip + kStrip;
      if (r >= m) {
        std::memset(row, 0, width * sizeof(float));
        continue;
      }
      const auto high = hn::Set(d, high_[r]), low = hn::Set(d, low_[r]);
      const auto first = hn::Set(d, static_cast<float>(reset_[r])), last = hn::Set(d, static_cast<float>(r));
      for (int64_t j = 0; j < width; j += kLanes) {
        const auto column = hn::Iota(d, static_cast<float>(j));
        const auto inside = hn::And(hn::Ge(column, first), hn::Le(column, last));
        const auto sum =
            hn::Add(hn::Sub(high, hn::LoadU(d, high_ + j)), hn::Sub(low, hn::LoadU(d, low_ + j)));
        hn::StoreU(hn::IfThenElseZero(inside, kernel::exp(d, hn::IfThenElseZero(inside, sum))), d, row + j);
      }
    }
  }

  const Shape* shape_ = nullptr;
  int64_t head_ = 0, chunk_ = 0;
  float *pair_ = nullptr, *before_ = nullptr, *after_ = nullptr, *high_ = nullptr, *low_ = nullptr;
  int64_t reset_[kLongestChunk];
};

// Rows of the tiles that come next, asked for a few at a time between products: rows of one head lie heads x
// width apart, where the hardware does not foresee them. Into the second-level cache, since the first has not
// enough sets.
class Prefetch {
 public:
  void clear() { count_ = current_ = row_ = 0; }
  template <class T>
  void add(const T* first, int64_t stride, int64_t rows, int64_t columns) {
    tiles_[count_++] = {reinterpret_cast<const char*>(first), stride * static_cast<int64_t>(sizeof(T)), rows,
                        columns * static_cast<int64_t>(sizeof(T))};
  }
  HWY_INLINE void rows(int64_t wanted) {
    for (; current_ < count_; ++current_, row_ = 0) {
      const Tile& tile = tiles_[current_];
      for (; row_ < tile.rows; ++row_) {
        if (wanted-- == 0) return;
        const char* line = tile.first + row_ * tile.stride;
        for (int64_t i = 0; i < tile.bytes; i += 64) __builtin_prefetch(line + i, 0, 2);
      }
    }
  }

 private:
  struct Tile {
    const char* first;
    int64_t stride, rows, bytes;
  };
  Tile tiles_[8];
  int64_t count_ = 0, current_ = 0, row_ = 0;
};

// Products with the lower triangle L [m, m] of leading dimension chunk, strip by strip; the strips' upper
// parts hold 0, whatever the scores there were. Each strip asks for `ahead` rows of what comes next. Where x
// holds something that is not finite, 0 times it would reach rows that it must not reach: the triangle alone
// is walked then.
//
// scores = the strips of rows x columns: rows [m, inner] of leading dimension row_width, columns [inner,
// chunk].
HWY_INLINE void lower_scores(const float* rows, int64_t row_width, const float* columns, int64_t inner,
                             int64_t m, int64_t chunk, float* scores, Prefetch& next, int64_t ahead) {
  for (int64_t s = 0; s < m; s += kStrip) {
    next.rows(ahead);
    kernel::gemm(kStrip, s + kStrip, inner, {rows + s * row_width, row_width, 1}, columns, chunk,
                 scores + s * chunk, chunk, false);
  }
}
HWY_INLINE void multiply_lower(const float* pair, int64_t m, int64_t chunk, float* scores) {
  for (int64_t r = 0; r < m; ++r) {
    const int64_t width = r / kStrip * kStrip + kStrip;
    multiply_row(pair + r * chunk, width, scores + r * chunk);
    std::fill(scores + r * chunk + r + 1, scores + r * chunk + width, 0.0f);
  }
}
// out (+)= L x, x [m, width].
HWY_INLINE void lower_times(const float* lower, int64_t chunk, const float* x, int64_t width, int64_t m,
                            float* out, bool accumulate, Prefetch& next, int64_t ahead) {
  if (!kernel::all_finite(x, m * width)) {
    if (!accumulate) std::fill(out, out + m * width, 0.0f);
    for (int64_t r = 0; r < m; ++r)
      for (int64_t j = 0; j <= r; ++j)
        add_scaled_row(x + j * width, lower[r * chunk + j], width, out + r * width);
    return;
  }
  for (int64_t s = 0; s < m; s += kStrip) {
    next.rows(ahead);
    kernel::gemm(kStrip, width, s + kStrip, {lower + s * chunk, chunk, 1}, x, width, out + s * width, width,
                 accumulate);
  }
}
// out += L^T x.
HWY_INLINE void add_lower_transposed_times(const float* lower, int64_t chunk, const float* x, int64_t width,
                                           int64_t m, float* out, Prefetch& next, int64_t ahead) {
  if (!kernel::all_finite(x, m * width)) {
    for (int64_t r = 0; r < m; ++r)
      for (int64_t j = 0; j <= r; ++j)
        add_scaled_row(x + r * width, lower[r * chunk + j], width, out + j * width);
    return;
  }
  for (int64_t s = 0; s < m; s += kStrip) {
    next.rows(ahead);
    kernel::gemm(kStrip, width, m - s, {lower + s * chunk + s, 1, chunk}, x + s * width, width,
                 out + s * width, width, true);
  }
}

}  // namespace longreach::recurrence_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // LONGREACH_LAYERS_OPS_RECURRENCE_CHUNK_INL_H_
