// y = x weight^T for a few rows of x: decoding. Each weight is used once a row of x, so that the time is that
// of reading the weights: long streams side by side, asked for ahead of their use, shared out in pieces.
#include <algorithm>
#include <vector>

#include "layers/ops/cpu/parallel.h"
#include "layers/ops/cpu/scratch.h"
#include "layers/ops/matmul/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/matmul/cpu/few_rows.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "layers/ops/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::few_rows::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using namespace simd::HWY_NAMESPACE;

// Vectors of a row of the weight that are summed side by side, since one chain of additions waits for itself.
// As many whatever the rows of x, so that a sum's bits do not depend on them.
constexpr int kChains = 2;
// Far enough for memory, near enough for the first cache.
constexpr int64_t kBytesAhead = 1024, kLine = 64;

// Rows of the weight that are read side by side, from places far apart: a core asks memory for more at a time
// when it follows several streams. Not more than there are registers for.
constexpr int streams_beside(int rows) { return rows <= 2 ? 4 : 2; }

// Elements of `kStreams` rows of the weight, `apart` from each other, times the rows of x, `in` apart.
template <int kRows, int kStreams, class T>
HWY_INLINE void dots(const T* weight, int64_t apart, const float* x, int64_t in,
                     float (&sums)[kStreams][kRows]) {
  RowVector partial[kStreams][kRows][kChains];
  for (auto& stream : partial)
    for (auto& row : stream)
      for (auto& chain : row) chain = hn::Zero(kRowTag);
  const int64_t step = lanes(), block = kChains * step;
  int64_t i = 0;
  for (; i + block <= in; i += block) {
#pragma GCC unroll 4
    for (int s = 0; s < kStreams; ++s) {
      const T* at = weight + s * apart + i;
      for (int64_t byte = 0; byte < block * static_cast<int64_t>(sizeof(T)); byte += kLine)
        __builtin_prefetch(reinterpret_cast<const char*>(at) + byte + kBytesAhead);
#pragma GCC unroll 2
      for (int c = 0; c < kChains; ++c) {
        const RowVector w = load_whole(at + c * step);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r)
          partial[s][r][c] = hn::MulAdd(w, hn::LoadU(kRowTag, x + r * in + i + c * step), partial[s][r][c]);
      }
    }
  }
  for (int c = 0; i < in; i += step, ++c)
    for (int s = 0; s < kStreams; ++s) {
      const RowVector w = load(weight + s * apart + i, in - i);
      for (int r = 0; r < kRows; ++r)
        partial[s][r][c] = hn::MulAdd(w, load(x + r * in + i, in - i), partial[s][r][c]);
    }
  for (int s = 0; s < kStreams; ++s)
    for (int r = 0; r < kRows; ++r) sums[s][r] = sum(hn::Add(partial[s][r][0], partial[s][r][1]));
}

HWY_INLINE void put(float value, float* to) { *to = value; }
HWY_INLINE void put(float value, uint16_t* to) { *to = simd::bf16_from_float(value); }

// Columns [first, first + count kStreams) of y, `count` of each stream.
template <int kRows, int kStreams, class T, class Y>
HWY_INLINE void side_by_side(const Product& p, const float* x, int64_t first, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    float sums[kStreams][kRows];
    dots<kRows, kStreams>(static_cast<const T*>(p.weight) + (first + i) * p.in, count * p.in, x, p.in, sums);
    for (int s = 0; s < kStreams; ++s)
      for (int r = 0; r < kRows; ++r)
        put(sums[s][r], static_cast<Y*>(p.y) + r * p.out + first + s * count + i);
  }
}

template <int kRows, class T, class Y>
void columns(const Product& p, int64_t first, int64_t last) {
  thread_local simd::Scratch<float> wide;
  const float* x = static_cast<const float*>(p.x);
  if constexpr (!std::is_same_v<T, float>) {
    float* copy = wide.get(kRows * p.in);
    row_to_float(static_cast<const T*>(p.x), kRows * p.in, copy);
    x = copy;
  }
  constexpr int kStreams = streams_beside(kRows);
  const int64_t each = (last - first) / kStreams, together = each * kStreams;
  side_by_side<kRows, kStreams, T, Y>(p, x, first, each);
  side_by_side<kRows, 1, T, Y>(p, x, first + together, last - first - together);
}

template <class T, class Y>
void columns_of(const Product& p, int64_t first, int64_t last) {
  constexpr decltype(&columns<1, T, Y>) by_rows[] = {columns<1, T, Y>, columns<2, T, Y>, columns<3, T, Y>,
                                                     columns<4, T, Y>};
  static_assert(std::size(by_rows) == kMostRows);
  by_rows[p.rows - 1](p, first, last);
}

void product(const Product& p, int64_t first, int64_t last) {
  if (p.dtype == DType::kFloat32)
    columns_of<float, float>(p, first, last);
  else if (p.y_dtype == DType::kFloat32)
    columns_of<uint16_t, float>(p, first, last);
  else
    columns_of<uint16_t, uint16_t>(p, first, last);
}

}  // namespace longreach::few_rows::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longreach::few_rows {
HWY_EXPORT(product);

namespace {

int64_t row_bytes(const Product& p) {
  return std::max<int64_t>(1, p.in) * (p.dtype == DType::kFloat32 ? 4 : 2);
}

// Columns of one product that one thread computes at a time.
struct Piece {
  const Product* product;
  int64_t first, last;
};

std::vector<Piece> pieces_of(std::span<const Product> products) {
  // Sixteen pieces and more: whoever is done early takes from the others. Not so many that a stream never
  // forms.
  constexpr int64_t kPieces = 16, kSmallest = 4096, kLargest = 65536;  // bytes
  int64_t all = 0;
  for (const Product& p : products) all += p.out * row_bytes(p);
  const int64_t bytes = std::clamp(all / kPieces, kSmallest, kLargest);
  std::vector<Piece> pieces;
  for (const Product& p : products) {
    const int64_t columns = std::max<int64_t>(1, bytes / row_bytes(p));
    for (int64_t first = 0; first < p.out; first += columns)
      pieces.push_back({&p, first, std::min(p.out, first + columns)});
  }
  return pieces;
}

}  // namespace

void forward(std::span<const Product> products) {
  const std::vector<Piece> pieces = pieces_of(products);
  const auto run = HWY_DYNAMIC_DISPATCH(product);
  parallel_tiles(std::ssize(pieces),
                 [&](int64_t i) { run(*pieces[i].product, pieces[i].first, pieces[i].last); });
}

}  // namespace longreach::few_rows
#endif
