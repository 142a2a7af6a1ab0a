// What the CUDA kernels of interval attention take and how they cut their work: plain data that the kernels
// (nvcc) and the launch plans (any compiler) share, so that they cannot disagree. interval_attention.h has the
// equations, forward.cuh and backward.cuh the algorithms.
#pragma once
#include <cstdint>

namespace longreach::interval {

// Rows [batch, token, head, element] in device memory: strides in bytes, elements dense.
struct CudaRows {
  char* data;
  int64_t batch, token, head;
  int32_t size;      // elements a row
  int32_t aligned;   // every row starts at a multiple of 16 bytes and is a multiple of 16 bytes long
  int32_t is_float;  // outputs: fp32 whatever the inputs are
};

// A tile of queries or keys: `first` counts rows from the start of the document. 32 bytes, read at once.
struct CudaTile {
  int32_t first;
  int32_t q_begin, q_end, k_begin, k_end;  // of the document
  int32_t query_tile;                      // key tiles: number of the document's first tile of queries
  int32_t unused[2];
};

// Which keys the rows of a tile see: all intervals lie in [begin, end), keys from last_lo to first_hi in every
// one of them, no key from visible_end on is seen. begin = end when all are empty.
struct CudaHull {
  int32_t begin, end, last_lo, first_hi, visible_end;
  int32_t unused[3];
};

struct CudaMask {
  int32_t causal, window, sinks;  // window 0: no limit
  int32_t batches, heads;         // of lo and hi, null or [batches, heads, queries]
  const int32_t *lo, *hi;
};

// The part that all kernels read.
struct CudaProblem {
  CudaRows q, k, v;
  CudaMask mask;
  const CudaTile* tiles;  // null: one document, tiles follow from the block's number
  int32_t tile_count;     // a head
  int32_t batches, queries, keys, heads, key_heads, value_heads;
  int32_t group;     // consecutive query heads with one key and one value head
  float scale_log2;  // forward: its absolute value and never 0; backward: as it is
  int32_t negate;    // forward: the scale is negative
};

struct CudaForward {
  CudaProblem problem;
  CudaRows o;
  float* lse;  // [batches, heads, queries]
  // Decoding: keys are dealt out to `splits` blocks; with more than one, o and lse are partial results with the
  // split as the outermost dimension (bytes and elements apart).
  int32_t splits;
  int64_t split_o, split_lse;
};

// The two numbers of a query that the backward pass needs: lse in base 2 (+inf where nothing is seen, so that
// weights become 0) and delta = dO . O - d(lse).
struct CudaTerms {
  float lse, delta;
};

struct CudaBackward {
  CudaProblem problem;
  CudaRows d_o, dq, dk, dv;
  float scale;
  const CudaTerms* terms;  // [batches, heads, queries]
  const CudaHull* hulls;   // null, or [mask batches, mask heads, hull_count]: of the tiles of queries
  int32_t hull_count;
};

// terms from lse, o, d_o and d_lse (or null); hulls for tiles of `columns` queries.
struct CudaRowTerms {
  CudaRows o, d_o;
  const float *lse, *d_lse;
  CudaTerms* terms;
  int32_t batches, heads, queries;
};

struct CudaHulls {
  CudaMask mask;
  const CudaTile* tiles;  // as in CudaProblem: tiles of queries
  int32_t tile_count, tile_rows, queries, keys;
  CudaHull* hulls;
};

// o and lse from `splits` partial results.
struct CudaMerge {
  const float *o, *lse;        // [splits, batches, heads, queries, row], [splits, batches, heads, queries]
  int64_t split_o, split_lse;  // elements
  int32_t splits, row, batches, heads, queries;
  CudaRows out;
  float* out_lse;
};

// out = sum of `parts` neighbouring heads of `in`, which is fp32.
struct CudaSumHeads {
  CudaRows in, out;
  int32_t parts, batches, tokens, heads;
};

// Rows that are not aligned, to rows that are.
struct CudaAlign {
  CudaRows in, out;
  int32_t batches, tokens, heads;
};

inline constexpr int kRowThreads = 128;  // of the kernels over rows: four warps

// How a block is cut: its warps stand row_warps x key_warps; each has row_tiles * 16 rows and its share of the
// `columns` rows of every streamed tile.
struct TileShape {
  int row_tiles, row_warps, key_warps, columns, stages;

  constexpr int rows() const { return 16 * row_tiles * row_warps; }
  constexpr int threads() const { return 32 * row_warps * key_warps; }
};

// The shapes fit two blocks into the shared memory of an A100 (164 KB) where head dims allow, never need more
// than 99 KB (sm_86, sm_89), and keep registers below 255 without spills.
constexpr TileShape forward_shape(int bytes, int qk, int v) {
  const int widest = qk > v ? qk : v;
  if (bytes == 4)
    return widest <= 64 ? TileShape{1, 4, 1, 32, 2} : TileShape{1, widest <= 128 ? 4 : 2, 1, 16, 2};
  if (widest <= 64) return {2, 4, 1, 64, 2};
  return {widest <= 128 ? 2 : 1, 4, 1, 32, 2};
}

// Decoding: 16 rows, keys shared out between the warps.
constexpr TileShape decode_shape(int bytes, int qk, int v) {
  const int widest = (qk > v ? qk : v) * bytes;
  if (widest <= 256) return {1, 1, 4, 64, 2};
  return {1, 1, 2, 32, widest <= 512 ? 2 : 1};
}

constexpr TileShape query_gradient_shape(int bytes, int qk, int v) {
  if (bytes == 4) return {1, qk <= 128 ? 4 : 2, 1, qk <= 64 ? 32 : 16, qk <= 128 ? 2 : 1};
  if (qk + v <= 128) return {2, 4, 1, 32, 2};
  return {1, 4, 1, qk + v <= 192 ? 64 : qk + v <= 320 ? 32 : 16, 2};
}

// Which gradients one kernel makes: accumulators of both do not fit the registers for the largest heads.
enum class KeyGradients : int32_t { kBoth, kKeys, kValues };

constexpr bool key_gradients_are_split(int bytes, int qk, int v) { return qk + v > (bytes == 4 ? 128 : 320); }

constexpr TileShape key_gradient_shape(int bytes, int qk, int v) {
  if (bytes == 4) return query_gradient_shape(bytes, qk, v);
  return {1, 4, 1, qk + v <= 128 ? 64 : qk + v <= 256 ? 32 : 16, 2};
}

constexpr int larger(int a, int b) { return a > b ? a : b; }

constexpr int forward_shared(const TileShape& shape, int bytes, int qk, int v) {
  const int tiles = shape.rows() * qk * bytes + shape.stages * shape.columns * (qk + v) * bytes;
  const int staging = shape.rows() * shape.key_warps * v * 4;
  return larger(tiles, staging) + shape.rows() * shape.key_warps * 8;
}

constexpr int query_gradient_shared(const TileShape& shape, int bytes, int qk, int v) {
  const int tiles = (shape.rows() + shape.stages * shape.columns) * (qk + v) * bytes;
  return larger(tiles, shape.rows() * qk * 4) + shape.rows() * 8;
}

constexpr int key_gradient_shared(const TileShape& shape, KeyGradients parts, int bytes, int qk, int v) {
  const int held = parts == KeyGradients::kValues ? qk : qk + v;
  const int tiles = (shape.rows() * held + shape.stages * shape.columns * (qk + v)) * bytes;
  return larger(tiles, shape.rows() * larger(qk, v) * 4) +
         shape.stages * shape.columns * static_cast<int>(sizeof(CudaTerms));
}

}  // namespace longreach::interval
