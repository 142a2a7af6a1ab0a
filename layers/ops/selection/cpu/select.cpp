// Scores of blocks and their choice on CPUs, a tile of rows of one list at a time.
//
//   logits   S[window, column] = scale k_window . q_column    columns: heads of the list x rows of the tile
//   shares   exp(S - max) / sum exp(S - max) over the windows that the row sees
//   votes    over the heads of a row, then over the windows that overlap a block, then the choice
//
// Rows and heads lie along the vector lanes: the product reads keys element by element where they lie,
// softmax and votes are plain loops over windows without a horizontal sum, and a window that a row does not
// see is a comparison of its number with the row's count (the windows that a row sees are always the first
// ones). A row's scores exist in the tile's working memory until its blocks are chosen. Heads that share keys
// fill the columns together, so that few rows (decoding) waste no lanes. No number depends on the tile it is
// made in: sums run over windows and heads in order.
#include <algorithm>
#include <atomic>
#include <limits>
#include <utility>
#include <vector>

#include "layers/ops/cpu/parallel.h"
#include "layers/ops/selection/cpu/choose_row.h"
#include "layers/ops/selection/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/selection/cpu/select.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "layers/ops/cpu/gemm-inl.h"
#include "layers/ops/cpu/pack-inl.h"
#include "layers/ops/cpu/scratch.h"
#include "layers/ops/cpu/vector_math-inl.h"

#ifndef LONGREACH_LAYERS_OPS_SELECTION_CPU_SELECT_TILE_
#define LONGREACH_LAYERS_OPS_SELECTION_CPU_SELECT_TILE_
namespace longreach::selection {

constexpr int64_t kColumns = 64;

// Rows [row, row + rows) of a document for one list of one batch entry.
struct Tile {
  int64_t batch, list, document, row, rows;
};

// fp32 rows of the pooled keys of one head.
struct KeyRows {
  const float* data;
  int64_t stride;
};

}  // namespace longreach::selection
#endif

HWY_BEFORE_NAMESPACE();
namespace longreach::selection::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace vec = simd::HWY_NAMESPACE;
using vec::FloatTag;
using vec::kLanes;

constexpr float kInfinity = std::numeric_limits<float>::infinity(), kLog2e = 1.44269504f;

template <class T>
void pack_head(const Select& p, int64_t batch, int64_t head, int64_t begin, int64_t end, float* to) {
  const T* from = static_cast<const T*>(p.k.data) + batch * p.k.batch + head * p.k.head;
  for (int64_t i = begin; i < end; ++i) vec::row_to_float(from + i * p.k.token, p.size, to + i * p.size);
}

void pack_keys(const Select& p, int64_t batch, int64_t head, int64_t begin, int64_t end, float* to) {
  (p.dtype == DType::kFloat32 ? pack_head<float> : pack_head<uint16_t>)(p, batch, head, begin, end, to);
}

// Heads of a list that share keys, side by side: column g rows + r is row r of the g-th of them.
struct Chunk {
  int64_t head, heads, columns, padded;
};

// What a tile works in.
struct Space {
  float *rows, *columns, *logits, *factors, *seen, *votes, *blocks, *scores;
  std::vector<float> values;
};

inline Space& space(const Select& p, int64_t windows, int64_t blocks) {
  static thread_local simd::Scratch<float> memory;
  static thread_local Space space;
  const int64_t size = vec::pad_to_lanes(p.size), map = std::max(windows, blocks) + 1;
  int64_t used = 0;
  const auto take = [&](int64_t count) { return std::exchange(used, used + vec::pad_to_lanes(count)); };
  const int64_t rows = take(kColumns * size), columns = take(kColumns * size),
                logits = take((windows + 1) * kColumns), factors = take(2 * kColumns),
                seen = take(2 * kColumns), votes = take(map * kColumns), sums = take(map * kColumns),
                scores = take(map * kColumns);
  float* data = memory.get(used);
  space.rows = data + rows, space.columns = data + columns, space.logits = data + logits;
  space.factors = data + factors, space.seen = data + seen, space.votes = data + votes;
  space.blocks = data + sums, space.scores = data + scores;
  return space;
}

template <class T>
void load_queries(const Select& p, const Tile& tile, const Chunk& chunk, const Space& s) {
  const int64_t first = p.documents[tile.document].row + tile.row;
  const T* from = static_cast<const T*>(p.q.data) + tile.batch * p.q.batch;
  for (int64_t c = 0; c < chunk.columns; ++c)
    vec::row_to_float(from + (first + c % tile.rows) * p.q.token + (chunk.head + c / tile.rows) * p.q.head,
                      p.size, s.rows + c * p.size);
  std::fill(s.rows + chunk.columns * p.size, s.rows + chunk.padded * p.size, 0.0f);
  vec::transpose(s.rows, p.size, chunk.padded, p.size, s.columns, chunk.padded);
}

// Logits, or in base 2 powers of what they lack to the largest of their column; what a column sees not is
// -inf or 0. factors: what makes them logits or shares of one, the mean's share included.
inline void weigh(const Select& p, const Chunk& chunk, int64_t windows, int64_t seen_by_all, float share,
                  const Space& s) {
  const FloatTag d;
  const auto none = hn::Set(d, -kInfinity), scale = hn::Set(d, p.softmax ? p.scale * kLog2e : p.scale);
  for (int64_t c = 0; c < chunk.padded; c += kLanes) {
    const auto seen = hn::LoadU(d, s.seen + c);
    float* logits = s.logits + c;
    auto most = none;
    for (int64_t i = 0; i < windows; ++i) {
      auto x = hn::Mul(hn::LoadU(d, logits + i * chunk.padded), scale);
      if (i >= seen_by_all) x = hn::IfThenElse(hn::Lt(hn::Set(d, static_cast<float>(i)), seen), x, none);
      most = hn::Max(most, x);
      hn::StoreU(x, d, logits + i * chunk.padded);
    }
    if (!p.softmax) {
      hn::StoreU(hn::Set(d, share), d, s.factors + c);
      continue;
    }
    most = hn::IfThenElse(hn::Eq(seen, hn::Zero(d)), hn::Zero(d), most);
    auto sum = hn::Zero(d);
    for (int64_t i = 0; i < windows; ++i) {
      const auto power = vec::exp2_bounded(d, hn::Sub(hn::LoadU(d, logits + i * chunk.padded), most));
      sum = hn::Add(sum, power);
      hn::StoreU(power, d, logits + i * chunk.padded);
    }
    // A sum that is no number stays one.
    const auto factor =
        hn::IfThenElse(hn::Eq(sum, hn::Zero(d)), hn::Zero(d), hn::Div(hn::Set(d, share), sum));
    hn::StoreU(factor, d, s.factors + c);
  }
}

// Joins the heads of a chunk with those before it. Lanes past the last row read a neighbour and mean nothing.
inline void vote(const Select& p, const Tile& tile, const Chunk& chunk, int64_t windows, bool first,
                 const Space& s) {
  const FloatTag d;
  const int64_t padded = vec::pad_to_lanes(tile.rows);
  for (int64_t i = 0; i < windows; ++i) {
    for (int64_t r = 0; r < padded; r += kLanes) {
      float* place = s.votes + i * padded + r;
      const float* logits = s.logits + i * chunk.padded + r;
      auto result = hn::LoadU(d, place);
      for (int64_t g = 0; g < chunk.heads; ++g) {
        const auto x =
            hn::Mul(hn::LoadU(d, logits + g * tile.rows), hn::LoadU(d, s.factors + g * tile.rows + r));
        if (first && g == 0)
          result = x;
        else if (p.vote == VoteKind::max)
          result = hn::IfThenElse(hn::Or(hn::Gt(x, result), hn::IsNaN(x)), x, result);
        else
          result = hn::Add(result, x);
      }
      hn::StoreU(result, d, place);
    }
  }
}

// votes [windows, padded] -> blocks [count, padded]: the overlap of windows and blocks in strides.
inline void sum_windows(const Select& p, int64_t windows, int64_t count, int64_t padded, const Space& s) {
  const FloatTag d;
  for (int64_t block = 0; block < count; ++block) {
    const int64_t begin = block * p.key_block, end = begin + p.key_block,
                  first = begin < p.width ? 0 : (begin - p.width) / p.stride + 1,
                  last = std::min(windows, (end + p.stride - 1) / p.stride);
    for (int64_t r = 0; r < padded; r += kLanes) {
      auto sum = hn::Zero(d);
      for (int64_t i = first; i < last; ++i) {
        const int64_t overlap = std::min(i * p.stride + p.width, end) - std::max(i * p.stride, begin);
        const auto weight = hn::Set(d, static_cast<float>(overlap) / static_cast<float>(p.stride));
        sum = hn::MulAdd(weight, hn::LoadU(d, s.votes + i * padded + r), sum);
      }
      hn::StoreU(sum, d, s.blocks + block * padded + r);
    }
  }
}

// Fills votes [windows, padded rows] for the tile.
inline void tile_votes(const Select& p, const Tile& tile, const KeyRows* keys, int64_t windows,
                       int64_t seen_by_all, const Space& s) {
  const int64_t group = p.heads / p.lists, per_key = p.heads / p.key_heads, first = tile.list * group,
                most = std::max<int64_t>(1, kColumns / tile.rows);
  const PackedDocument& document = p.documents[tile.document];
  const Row* rows = p.rows + document.row + tile.row;
  const float share = p.vote == VoteKind::mean ? 1.0f / static_cast<float>(group) : 1.0f;
  for (int64_t head = first; head < first + group;) {
    const int64_t end = std::min({head + most, first + group, (head / per_key + 1) * per_key});
    Chunk chunk{head, end - head, (end - head) * tile.rows, 0};
    chunk.padded = vec::pad_to_lanes(chunk.columns);
    for (int64_t c = 0; c < chunk.padded; ++c)
      s.seen[c] = c < chunk.columns ? static_cast<float>(rows[c % tile.rows].windows) : 0.0f;
    (p.dtype == DType::kFloat32 ? load_queries<float> : load_queries<uint16_t>)(p, tile, chunk, s);
    const KeyRows& k = keys[tile.batch * p.key_heads + head / per_key];
    vec::gemm(windows, chunk.padded, p.size, {k.data + document.window * k.stride, k.stride, 1}, s.columns,
              chunk.padded, s.logits, chunk.padded, false);
    weigh(p, chunk, windows, seen_by_all, share, s);
    vote(p, tile, chunk, windows, head == first, s);
    head = end;
  }
}

// Returns whether all scores are numbers.
bool select_tile(const Select& p, const Tile& tile, const KeyRows* keys, Piece& piece, int32_t* counts) {
  const PackedDocument& document = p.documents[tile.document];
  const Row* rows = p.rows + document.row + tile.row;
  int64_t windows = 0, seen_by_all = document.windows, blocks = 0;
  for (int64_t r = 0; r < tile.rows; ++r) {
    windows = std::max(windows, rows[r].windows);
    seen_by_all = std::min(seen_by_all, rows[r].windows);
    blocks = std::max(blocks, rows[r].candidates);
  }
  Space& s = space(p, windows, blocks);
  const int64_t padded = vec::pad_to_lanes(tile.rows);
  tile_votes(p, tile, keys, windows, seen_by_all, s);
  const bool same = p.width == p.key_block && p.stride == p.key_block;
  if (same)  // blocks without a window: the part at the end of a document whose windows must fit
    std::fill(s.votes + std::min(windows, blocks) * padded, s.votes + blocks * padded,
              p.softmax ? 0.0f : -kInfinity);
  else
    sum_windows(p, windows, blocks, padded, s);
  vec::transpose(same ? s.votes : s.blocks, padded, blocks, tile.rows, s.scores, blocks);
  for (int64_t r = 0; r < tile.rows; ++r) {
    const int64_t count = choose_row(p.limits, rows[r], s.scores + r * blocks, s.values, piece.blocks);
    if (count < 0) return false;
    counts[r] = static_cast<int32_t>(count);
    if (p.scores == nullptr) continue;
    float* to = p.scores + (piece.first + r) * p.blocks;
    std::copy(s.scores + r * blocks, s.scores + r * blocks + rows[r].candidates, to);
    std::fill(to + rows[r].candidates, to + p.blocks, -kInfinity);
  }
  return true;
}

}  // namespace longreach::selection::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longreach::selection {
HWY_EXPORT(pack_keys);
HWY_EXPORT(select_tile);

namespace {

// Keys as rows of fp32, by batch entry and key head: where they lie, or copies when rows are bf16, or so far
// apart that reading them for many tiles would cost more.
std::vector<KeyRows> key_rows(const Select& p, simd::Scratch<float>& copies) {
  constexpr int64_t kKeysATask = 512;
  const bool in_place = p.dtype == DType::kFloat32 && (p.k.token == p.size || p.row_count <= kColumns);
  const int64_t heads = p.batches * p.key_heads;
  std::vector<KeyRows> rows(static_cast<size_t>(heads));
  float* space = in_place ? nullptr : copies.get(heads * p.key_count * p.size);
  for (int64_t i = 0; i < heads; ++i) {
    if (in_place)
      rows[i] = {
          static_cast<const float*>(p.k.data) + i / p.key_heads * p.k.batch + i % p.key_heads * p.k.head,
          p.k.token};
    else
      rows[i] = {space + i * p.key_count * p.size, p.size};
  }
  if (in_place) return rows;
  const auto pack = HWY_DYNAMIC_DISPATCH(pack_keys);
  const int64_t pieces = (p.key_count + kKeysATask - 1) / kKeysATask;
  parallel_for(0, heads * pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t head = i / pieces, first = i % pieces * kKeysATask;
      pack(p, head / p.key_heads, head % p.key_heads, first, std::min(first + kKeysATask, p.key_count),
           space + head * p.key_count * p.size);
    }
  });
  return rows;
}

std::vector<Tile> tiles_of(const Select& p) {
  const int64_t shared = std::min(p.heads / p.lists, p.heads / p.key_heads);
  const int64_t most = shared == 1 ? kColumns : shared == 2 ? kColumns / 2 : kColumns / 4;
  std::vector<Tile> tiles;
  for (int64_t batch = 0; batch < p.batches; ++batch)
    for (int64_t list = 0; list < p.lists; ++list)
      for (int64_t n = 0; n < p.document_count; ++n)
        for (int64_t row = 0; row < p.documents[n].rows; row += most)
          tiles.push_back({batch, list, n, row, std::min(most, p.documents[n].rows - row)});
  return tiles;
}

}  // namespace

Lists select_cpu(const Select& p) {
  const std::vector<Tile> tiles = tiles_of(p);
  simd::Scratch<float> copies;
  const std::vector<KeyRows> keys = key_rows(p, copies);
  Lists lists;
  lists.pieces.resize(tiles.size());
  lists.counts.resize(static_cast<size_t>(p.batches * p.lists * p.row_count));
  std::atomic<bool> nan{false};
  const auto run = HWY_DYNAMIC_DISPATCH(select_tile);
  parallel_tiles(static_cast<int64_t>(tiles.size()), [&](int64_t i) {
    const Tile& tile = tiles[i];
    Piece& piece = lists.pieces[i];
    piece.first =
        (tile.batch * p.lists + tile.list) * p.row_count + p.documents[tile.document].row + tile.row;
    piece.rows = tile.rows;
    if (!run(p, tile, keys.data(), piece, lists.counts.data() + piece.first)) nan = true;
  });
  lists.nan = nan;
  return lists;
}

}  // namespace longreach::selection
#endif
