// What the CUDA kernels of block attention take and how they cut their work: plain data that the kernels
// (nvcc) and the launch plans (any compiler) share. block_attention.h has the equations, forward.cuh,
// backward.cuh and transpose.cuh the algorithms. Rows in memory, terms of the backward pass and the shapes of
// tiles are those of all attention kernels (layers/ops/cuda/attention).
#pragma once
#include <cstdint>

#include "layers/ops/cuda/attention/params.h"

namespace longreach::block {

using namespace cuda::attention;

// A packed document: its queries and keys, its first row of the lists and its first key block among those of
// all documents. 32 bytes, read at once.
struct CudaDocument {
  int32_t q_begin, q_end, k_begin, k_end, row_begin, block_begin;
  int32_t unused[2];
};

struct CudaLists {
  const int32_t* indices;                  // [batches, heads, rows, entries]
  int32_t batches, heads, rows, entries;   // batches 1: one for all
  int32_t query_block, key_block, causal;  // key_block is a multiple of 16
  int32_t blocks;                          // key blocks of all documents
  const CudaDocument* documents;           // null: one
  int32_t document_count, queries, keys;   // of the whole sequence
};

// The part that all attention kernels read.
struct CudaProblem {
  CudaRows q, k, v;
  CudaLists lists;
  int32_t heads, key_heads, value_heads;
  int32_t group;      // consecutive query heads with one list, one key head and one value head
  int32_t row_tiles;  // tiles a row of the lists, of queries times heads of a group
  float scale_log2;   // forward: its absolute value and never 0; backward and statistics: as it is
  int32_t negate;     // forward: the scale is negative
};

struct CudaForward {
  CudaProblem problem;
  CudaRows o;
  float* lse;  // [batches, heads, queries]
};

// Largest weight and sum of weights of each listed block, float32 [batches, owners, rows, entries]: an owner
// is a list or a head, and has owner_heads query heads.
struct CudaStatistics {
  CudaProblem problem;
  const float* lse;
  float *block_max, *block_sum;
  int32_t owners, owner_heads;
};

// The lists the other way: which rows list a block. Rows of the lists are cut into chunks; a chunk counts for
// itself, so that its entries have a place of their own in the order of rows.
struct CudaTranspose {
  CudaLists lists;
  int32_t chunk_rows, chunks;
  // [lists, chunks, blocks]: entries of a chunk, then the place of the chunk's next one in its block.
  int32_t* counts;
  int32_t* starts;  // [lists, blocks + 1]: first entry of a block
  int32_t* rows;    // [lists, rows x entries]: rows in rising order, block after block
};

struct CudaBackward {
  CudaProblem problem;
  CudaRows d_o, dq, dk, dv;
  float scale;
  const CudaTerms* terms;  // [batches, heads, queries]
  // Of key_gradient: CudaTranspose's, query heads with one key and one value head, tiles a key block.
  const int32_t *starts, *rows;
  int32_t pair_group, block_tiles;
};

inline constexpr int kPiece = 16;              // keys that lie together in every block
inline constexpr int kNowhere = 1 << 30;       // more than any key: pieces that are not there
inline constexpr int kTransposeThreads = 128;  // four chunks a block
inline constexpr int kScanThreads = 256;
inline constexpr int kRing = 4;  // tiles whose columns key_gradient knows at a time

// Row of a streamed tile of queries: the query, or -1, and its head.
struct QueryColumn {
  int32_t query, head;
};

// Tiles of `rows` rows for each kernel: 16 rows are the heads of one token, and the keys of a tile are shared
// out between four warps. The shapes keep to the limits of interval attention's: 99 KB of shared memory, two
// blocks in 164 KB where head dims allow, no spills.
// The largest tile of the forward pass, 128 rows, fits the registers in 16-bit types alone.
constexpr bool has_large_forward(int bytes, int qk) { return bytes == 2 && qk <= 128; }

constexpr TileShape forward_shape(int rows, int bytes, int qk, int v) {
  const int widest = larger(qk, v) * bytes;
  if (rows == 16) {
    if (widest <= 256) return {1, 1, 4, 64, 2};
    return {1, 1, 2, 32, widest <= 512 ? 2 : 1};
  }
  const int columns = widest <= 128 ? 64 : widest <= 384 ? 32 : 16;
  return {rows / 64, 4, 1, columns, 2};
}

// Sixteen rows of fp32 with the widest heads do not fit the registers: there 32 rows are the only tile.
constexpr bool has_small_query_gradient(int bytes, int qk, int v) { return (qk + v) * bytes <= 1024; }

constexpr TileShape query_gradient_shape(int rows, int bytes, int qk, int v) {
  const int both = (qk + v) * bytes;
  if (rows == 16) return {1, 1, both <= 512 ? 4 : 2, both <= 512 ? 64 : 32, 2};
  if (both > 1024) return {1, 2, 1, 16, 2};
  return {1, 4, 1, both <= 256 ? 64 : both <= 640 ? 32 : 16, 2};
}

// As in interval attention: accumulators of both gradients do not fit the registers in fp32 from 128 elements
// on.
constexpr bool key_gradients_are_split(int bytes, int qk, int v) { return bytes == 4 && qk + v > 128; }

// Rows of key_gradient are keys, columns queries; 32 rows take the smaller blocks and everything in fp32.
constexpr TileShape key_gradient_shape(int rows, int bytes, int qk, int v) {
  const int both = (qk + v) * bytes;
  if (rows == 32) return {1, 2, 2, both <= 256 ? 64 : 32, both <= 1024 ? 2 : 1};
  return {1, 4, 1, both <= 256 ? 64 : both <= 512 ? 32 : 16, 2};
}

constexpr TileShape statistics_shape(int bytes, int qk) {
  return {1, 4, 1, qk * bytes <= 256 ? 64 : qk * bytes <= 512 ? 32 : 16, 2};
}

constexpr int forward_bytes(const TileShape& shape, int bytes, int qk, int v) {
  const int tiles = (shape.rows() * qk + shape.stages * shape.columns * (qk + v)) * bytes;
  const int meeting = shape.key_warps > 1 ? shape.rows() * shape.key_warps * 8 : 0;
  return larger(tiles, shape.rows() * shape.key_warps * v * 4) + meeting;
}

constexpr int query_gradient_bytes(const TileShape& shape, int bytes, int qk, int v) {
  const int tiles = (shape.rows() + shape.stages * shape.columns) * (qk + v) * bytes;
  return larger(tiles, shape.rows() * shape.key_warps * qk * 4);
}

constexpr int key_gradient_bytes(const TileShape& shape, int bytes, int qk, int v) {
  const int tiles = (shape.rows() + shape.stages * shape.columns) * (qk + v) * bytes;
  const int columns = shape.columns * (shape.stages * static_cast<int>(sizeof(CudaTerms)) +
                                       kRing * static_cast<int>(sizeof(QueryColumn)));
  return larger(tiles, shape.rows() * shape.key_warps * larger(qk, v) * 4) + columns;
}

constexpr int statistics_bytes(const TileShape& shape, int bytes, int qk) {
  return (shape.rows() + shape.stages * shape.columns) * qk * bytes +
         2 * shape.columns / kPiece * shape.row_warps * 8;
}

}  // namespace longreach::block
