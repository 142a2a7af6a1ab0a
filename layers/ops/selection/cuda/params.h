// What the CUDA kernels of selection take and how they cut their work: plain data that the kernels (nvcc) and
// the launch plans (any compiler) share. selection.h has the meaning, choose.cuh, select.cuh and pool.cuh the
// algorithms.
#pragma once
#include <cstdint>

#include "layers/ops/cuda/attention/params.h"

namespace longreach::selection {

using namespace cuda::attention;

// One document: its rows of the lists, its keys, its windows among the pooled keys, its blocks, how many of
// them a row may keep (forced ones included), and its first tile of rows. 32 bytes, read at once.
struct CudaScope {
  int32_t row, rows, keys, first_window, windows, blocks, budget, tile;
};

// What every row may and must keep, and where its list goes.
struct CudaRule {
  const CudaScope* scopes;  // null: one document, `scope`
  CudaScope scope;
  int32_t scope_count, rows;  // rows of one list
  int32_t query_block, key_block, offset, causal;
  int32_t first, latest;  // forced blocks
  int32_t has_mass, has_threshold;
  double mass;
  float threshold;   // the largest float that is not above the rule's
  int32_t size;      // entries of a list
  int32_t* indices;  // [lists of all batch entries, rows, size]; null: rows are only counted
  // [2], 0 before: whether a candidate's score is NaN, the longest list where rows are counted.
  int32_t* status;
};

struct CudaChoose {
  CudaRule rule;
  const float* scores;  // [lists, rows, blocks]
  int32_t lists, blocks, pitch;
};

enum class CudaVisible : int32_t { started, complete, past, all };

// Where the parts of a tile's shared memory begin, in bytes; queries are first.
struct SelectParts {
  int32_t keys, weights, statistics, votes, scores, end;
};

struct CudaSelect {
  CudaRule rule;
  CudaRows q, k;
  int32_t lists, heads, key_heads;
  int32_t tiles, tile_rows;  // of a list; rows of a tile
  int32_t chunk, chunks;     // heads of a list that go through a product together; how many times
  int32_t width, stride;     // of windows
  int32_t same;              // windows are the blocks
  int32_t softmax, largest;  // votes: the largest of the heads, else the sum
  CudaVisible visible;
  float scale;    // of logits; in base 2 with softmax
  float share;    // of the votes' sum: the mean's
  float* scores;  // [batches, lists, rows, blocks], or null
  int32_t blocks, pitch;
  SelectParts parts;
};

// A document's tokens and windows. 16 bytes, read at once.
struct CudaSpan {
  int32_t token, tokens, window, windows;
};

// [batch, token or window, head, element]: strides in elements, the last dimension dense.
struct CudaTensor {
  void* data;
  int64_t batch, token, head;
  int32_t quads;  // every row begins at a multiple of 4 elements and is one long
};

struct CudaPool {
  const CudaSpan* spans;  // null: one document, `span`
  CudaSpan span;
  int32_t span_count;
  int32_t tokens, windows, heads, size;  // of one batch entry; elements of a head
  int32_t width, stride;
  int32_t parts;  // blocks a token or window
  int32_t pool_count, picking;
  uint32_t pools;        // two bits a pool, the first one lowest
  CudaTensor x, pooled;  // or their gradients
  int32_t* picked;       // [batches, windows, heads, picking, size]
};

inline constexpr int kMostPools = 16;
inline constexpr int kPoolThreads = 256;
inline constexpr int kChooseWarps = 4;
inline constexpr int kSharedBytes = 99 * 1024;  // that every device from sm_80 on has for a block

// A tile: 64 rows (rows of the lists times heads), four warps of 16; windows come in tiles of `columns`, two
// at a time.
inline constexpr int kTileRows = 64, kSelectThreads = 128;
constexpr int select_columns(int bytes, int size) { return size * bytes <= 256 ? 64 : 32; }

// Votes of a tile of windows: one place in 33 is left free, so that neighbouring blocks, which read every
// fourth vote in NSA, do not meet in the banks.
constexpr int votes_pitch(int columns) { return columns + columns / 32; }

// For the plan: p has everything but where the parts of shared memory begin.
constexpr SelectParts select_parts(int bytes, int size, const CudaSelect& p) {
  const int columns = select_columns(bytes, size);
  SelectParts parts{};
  parts.keys = kTileRows * size * bytes;
  parts.weights = parts.keys + 2 * columns * size * bytes;
  parts.statistics = parts.weights + kTileRows * columns * 4;
  parts.votes = parts.statistics + (p.softmax ? p.tile_rows * p.chunks * p.chunk * 8 : 0);
  parts.scores = parts.votes + (p.same ? 0 : p.tile_rows * votes_pitch(columns) * 4);
  parts.end = parts.scores + p.tile_rows * p.pitch * 4;
  return parts;
}

}  // namespace longreach::selection
